"""Compiled code on disk is used only if it was made from the present sources."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("numba")

from backends import availability
from backends import compilation as compiled_code
from backends.numba import environment
from backends.numba.kernels import compilation, disk_cache, libraries, vector_width

ROOT = Path(__file__).parents[2]
KERNELS = "backends.numba.kernels"
CALLEE = f"from {KERNELS}.compilation import kernel\n\n\n@kernel\ndef number(): return {{value}}\n"


def test_code_from_other_sources_is_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    compilation.delete_stale_code(str(folder))  # makes the folder before Numba does
    stale = [
        folder / f"{name}-1.py311.nbi"
        for name in ("epoch.run_steps", "dense.linear", "gemm.gemm_dot")
    ]
    foreign = folder / "other.function-1.py311.nbi"
    for file in (*stale, foreign):
        file.touch()
    compilation.delete_stale_code.cache_clear()
    compilation.delete_stale_code(str(folder))
    assert all(file.exists() for file in (*stale, foreign))  # the sources did not change
    (folder / compilation.STAMP).write_text("hash of other sources")
    compilation.delete_stale_code.cache_clear()
    compilation.delete_stale_code(str(folder))
    assert not any(file.exists() for file in stale)
    assert foreign.exists()


@pytest.mark.parametrize(
    ("caller", "callee"),
    [("caller", "callee"), ("caller", "simd.callee"), ("simd.caller", "callee")],
)
def test_a_change_in_one_file_recompiles_kernels_of_other_files(
    tmp_path: Path, caller: str, callee: str
) -> None:
    package = tmp_path.joinpath(*KERNELS.split("."))
    (package / "simd").mkdir(parents=True)
    for folder in (package / "simd", package, package.parent, package.parents[1]):
        (folder / "__init__.py").touch()
    for module in (
        availability,
        compiled_code,
        environment,
        compilation,
        disk_cache,
        libraries,
        vector_width,
    ):
        source = Path(module.__file__)
        (tmp_path / source.relative_to(ROOT)).write_bytes(source.read_bytes())
    files = {name: package / f"{name.replace('.', '/')}.py" for name in (caller, callee)}
    files[caller].write_text(
        f"from {KERNELS}.compilation import entry\n"
        f"from {KERNELS}.{callee} import number\n\n\n"
        "@entry\ndef call(): return number()\n"
    )
    answers = []
    for value in (1, 2):
        files[callee].write_text(CALLEE.format(value=value))
        run = subprocess.run(
            [sys.executable, "-c", f"from {KERNELS}.{caller} import call; print(call())"],
            cwd=tmp_path,
            env={
                "PYTHONPATH": str(tmp_path),
                "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
                # Python does not notice a change within a second.
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            capture_output=True,
            text=True,
            check=True,
        )
        answers.append(int(run.stdout))
    assert answers == [1, 2]


PROGRAM = f"""
from {KERNELS}.compilation import entry, kernel
@kernel
def one(x): return x + 1
@entry
def two(x): return one(x) + 1
print(two(3), sum(two.stats.cache_hits.values()))
"""


ANNOUNCEMENT = (
    "compiling kernels for this CPU; this takes up to 10 seconds, and later runs reuse them"
)


def call_kernel(folder: Path, *, limit: int | None = None) -> tuple[str, list[str]]:
    """Run `program.py` in `folder`; return its output and its warnings.

    If it compiles kernels, it must say so, once.

    Args:
        folder: contains the program and its cache.
        limit: maximum size of a file in bytes, to simulate a full disk.
    """

    def restrict() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    run = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "NUMBA_CACHE_DIR": str(folder / "cache"),
        },
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=None if limit is None else restrict,
    )
    output, lines = run.stdout.strip(), run.stderr.splitlines()
    assert lines.count(ANNOUNCEMENT) == (0 if output.endswith(" 1") else 1)
    return output, [line for line in lines if "Warning" in line]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a program and its compiled code."""
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "program.py").write_text(PROGRAM)
    assert call_kernel(folder) == ("5 0", [])
    assert call_kernel(folder) == ("5 1", [])
    return folder


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        pytest.param("nbi", lambda content: b"", id="index empty", marks=pytest.mark.slow),
        pytest.param("nbi", lambda content: content[:-1], id="index cut"),
        pytest.param(
            "nbi", lambda content: b"no pickle at all", id="index foreign", marks=pytest.mark.slow
        ),
        pytest.param("nbc", lambda content: b"", id="code empty", marks=pytest.mark.slow),
        pytest.param(
            "nbc",
            lambda content: content[: len(content) // 2],
            id="code cut",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "nbc",
            lambda content: content[:-60] + bytes([content[-60] ^ 1]) + content[-59:],
            id="code, one bit",
        ),
    ],
)
def test_damaged_file_is_compiled_again_with_one_warning(
    compiled: Path, suffix: str, damage: Callable[[bytes], bytes]
) -> None:
    cache = compiled / "cache"
    (file,) = cache.rglob(f"*.{suffix}")
    file.write_bytes(damage(file.read_bytes()))
    output, warnings = call_kernel(compiled)
    assert output == "5 0"
    (warning,) = warnings
    assert f"compiled code in {cache}" in warning
    assert "is damaged; it is deleted and compiled again" in warning
    assert call_kernel(compiled) == ("5 1", [])


def test_code_for_each_width_of_vectors_is_kept_beside_the_others(
    compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = []
    for bits in ("128", "512", "128", "512"):
        monkeypatch.setenv("MNIST_ACCEL_VECTOR_BITS", bits)
        outputs.append(call_kernel(compiled)[0])
    cached = outputs[2:]
    assert cached == ["5 1", "5 1"]
    assert "5 0" in outputs[:2]  # at most one of the widths was compiled before


def test_several_processes_fill_the_cache_at_once(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with ThreadPoolExecutor(3) as pool:
        first = list(pool.map(call_kernel, [tmp_path] * 3))
    assert {output.split()[0] for output, _ in first} == {"5"}
    assert [warnings for _, warnings in first] == [[], [], []]
    assert call_kernel(tmp_path) == ("5 1", [])


def test_full_disk_gives_one_warning_and_the_kernels_run(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    output, warnings = call_kernel(tmp_path, limit=2000)
    assert output == "5 0"
    (warning,) = warnings
    assert f"compiled code cannot be kept in {tmp_path / 'cache'}" in warning
    assert "File too large" in warning
    assert "NUMBA_CACHE_DIR" in warning
    assert call_kernel(tmp_path) == ("5 0", [])  # nothing incomplete was left
    assert call_kernel(tmp_path) == ("5 1", [])


def test_without_a_writable_folder_kernels_run_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locator(function: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(compilation, "TolerantCache", no_locator)
    monkeypatch.setattr(disk_cache, "problems", {})
    with pytest.warns(UserWarning, match=r"cannot be kept in .*no locator.*NUMBA_CACHE_DIR"):
        first = compilation.entry(lambda x: x + 1)
    second = compilation.entry(lambda x: x + 2)  # without a second warning
    monkeypatch.setattr(compiled_code, "compiled_kernels", [])
    assert (first(1), second(1)) == (2, 3)
    assert [record.message for record in caplog.records] == [ANNOUNCEMENT]


def test_only_the_kernels_of_a_network_are_compiled() -> None:
    code = (
        "import numpy as np, mnist_accel as ma\n"
        "from backends.numba.kernels import backward, losses, updates\n"
        "images, labels = np.zeros((2, 784), np.uint8), np.zeros(2, np.int64)\n"
        "for recipe in ('two-layer', 'cnn'):\n"
        "    model = ma.create_model(recipe, backend=ma.get_backend('numba'))\n"
        "    ma.Trainer(model, 'sgd').prepare(images, labels)\n"
        "    model.predict(images)\n"
        "    kernels = backward.conv2d_direct, backward.conv2d, losses.quadratic, updates.adam\n"
        "    print(*(len(kernel.signatures) for kernel in kernels))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines() == ["0 0 0 0", "1 0 0 0"]
