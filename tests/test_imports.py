"""Import time, imported packages, and a foreign package that hides `backends`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"cupy", "matplotlib", "numba", "pooch", "rich", "scipy", "torch"}


def run(code: str, *, cwd: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter that searches modules in `cwd`, in `path`, then in ROOT."""
    search = os.pathsep.join([path, str(ROOT)] if path else [str(ROOT)])
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )


def output(code: str, cwd: Path) -> str:
    result = run(code, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import mnist_accel",
        "from mnist_accel import *",
        "import mnist_accel.commands",
        # Training on NumPy does not import them either.
        """
import numpy as np
import mnist_accel as ma
model = ma.create_model("cnn", backend=ma.get_backend("numpy"))
ma.Trainer(model).fit(np.zeros((2, 28, 28), np.uint8), np.array([3, 4]), iterations=1)
""",
    ],
)
def test_heavy_packages_are_not_imported(tmp_path: Path, code: str) -> None:
    listing = output(f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))", tmp_path)
    loaded = {name.partition(".")[0] for name in json.loads(listing)}
    assert "mnist_accel" in loaded
    assert not loaded & HEAVY


def test_import_takes_less_than_a_third_of_a_second(tmp_path: Path) -> None:
    code = (
        "from time import process_time; start = process_time(); import mnist_accel; "
        "print(process_time() - start)"  # other programs do not change the CPU time
    )
    assert min(float(output(code, tmp_path)) for _ in range(5)) < 0.3


def test_a_foreign_backends_package_is_named_in_the_error(tmp_path: Path) -> None:
    foreign = tmp_path / "elsewhere" / "backends"
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").write_text("get_backend = None\n")
    code = "import mnist_accel; mnist_accel.get_backend('numpy')"
    result = run(code, cwd=tmp_path, path=str(foreign.parent))
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: another package called 'backends' hides the one")
    assert str(foreign / "__init__.py") in last
    assert "PYTHONPATH" in last


def test_every_public_name_can_be_imported(tmp_path: Path) -> None:
    code = (
        "import mnist_accel as ma; print(all(hasattr(ma, name) for name in dir(ma)), len(dir(ma)))"
    )
    found, count = output(code, tmp_path).split()
    assert found == "True"
    assert int(count) > 20


def run_module(*words: str, cwd: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """Run `python -m` with these words; modules are searched in `cwd`, then in `path`."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("content", ["get_backend = None\n", "raise RuntimeError('not ours')\n"])
def test_commands_run_in_a_folder_whose_files_are_named_like_libraries(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "backends").mkdir()
    for name in ("backends/__init__", "numpy", "json", "random", "rich", "typing"):
        (tmp_path / f"{name}.py").write_text(content)
    result = run_module("mnist_accel", "data", "--dataset", "digits", cwd=tmp_path, path=ROOT)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("package", "command", "make"),
    [
        ("numpy", "mnist_accel", "make train"),
        ("argcomplete", "mnist_accel completion bash", "make train"),  # imported by the command
        ("cpuinfo", "benchmarks", "make bench"),
        ("cpuinfo", "benchmarks.gpu", "make bench"),
    ],
)
def test_a_package_that_is_not_installed_is_reported_in_one_line(
    tmp_path: Path, package: str, command: str, make: str
) -> None:
    error = f"raise ModuleNotFoundError('No module named {package}', name='{package}')\n"
    (tmp_path / f"{package}.py").write_text(error)
    result = run_module(*command.split(), cwd=ROOT, path=tmp_path)
    assert result.returncode == 3
    (line,) = result.stderr.splitlines()
    assert f"the package {package} is not installed for {sys.executable}; " in line
    assert f"`{make}` installs it" in line
    assert f"{sys.executable} -m pip install -c constraints.txt -e " in line
