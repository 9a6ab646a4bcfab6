"""Compiled code on disk is used only if it was made from the present sources."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

from backends.numba.kernels import compilation

KERNELS = "backends.numba.kernels"
CALLEE = f"from {KERNELS}.compilation import kernel\n\n\n@kernel\ndef number(): return {{value}}\n"


def test_code_from_other_sources_is_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    compilation.delete_stale_code(str(folder))  # makes the folder before Numba does
    stale = [
        folder / f"{name}-1.py311.nbi"
        for name in ("epoch.run_steps", "dense.linear", "gemm.gemm_dot_tile")
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
    (package / "compilation.py").write_bytes(Path(compilation.__file__).read_bytes())
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
