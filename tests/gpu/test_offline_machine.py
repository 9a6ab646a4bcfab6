"""The acceptance run without a network: bundle, check of the packages, first results."""

import importlib.metadata
import json
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from backends import get_backend
from backends.cupy.backend import CupyBackend
from benchmarks.gpu import bundle, own_process, preflight, smoke
from benchmarks.host import ROOT
from mnist_accel.data import Dataset
from mnist_accel.nn.network import Network
from tests.support import published_files

FOLDER = ROOT / "benchmarks" / "gpu"
needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository")


def packages_in(file: str) -> set[str]:
    """Return the names of the packages that a file of requirements lists."""
    lines = (FOLDER / file).read_text(encoding="utf-8").splitlines()
    return {re.split("[=<>]", line)[0] for line in lines if line and not line.startswith("#")}


# ---------------------------------------------------------------------------------------- bundle


def write_wheel(name: str, folder: Path) -> None:
    """Write a wheel with the files of an installed package, and the version of constraints.txt."""
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^({name.replace('-', '[-_]')})==(\S+)$", constraints, re.MULTILINE)
    project, version = name.replace("-", "_"), found[1]
    info = f"{project}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{project}-{version}-py3-none-any.whl", "w") as wheel:
        for file in importlib.metadata.files(name) or ():
            if ".dist-info" not in str(file) and file.suffix != ".pyc":
                wheel.write(str(file.locate()), str(file))
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def small_data(tmp_path, monkeypatch):
    """A small data set in place of MNIST, and no package index."""
    monkeypatch.setattr(bundle, "MNIST", published_files.TINY)
    monkeypatch.setenv("MNIST_ACCEL_DATA", str(published_files.fill(tmp_path / "data")))
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@needs_git
@pytest.mark.posix
def test_bundle_starts_with_the_python_of_the_machine(tmp_path, monkeypatch, capsys, small_data):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in packages_in("wheels.txt"):
        write_wheel(name, wheels)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    out = tmp_path / "bundle"
    version = ".".join(map(str, sys.version_info[:2]))
    assert bundle.main(["--out", str(out), "--python", version]) == 0
    assert re.match(rf"{out}: \d+\.\d MB; copy it", capsys.readouterr().out)
    assert sorted(path.name for path in out.iterdir()) == ["mnist", "packages", "run", "source"]
    assert len(list((out / "mnist").glob("*.gz"))) == 4
    assert (out / "packages" / "msgspec" / "__init__.py").exists()
    assert not (out / "source" / "benchmarks" / "results").exists()
    if CupyBackend.availability().ok:
        pytest.skip("the acceptance run would start")
    monkeypatch.setenv("PYTHON", sys.executable)
    done = subprocess.run([out / "run"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 3
    assert "'cupy' cannot run here" in done.stderr
    code = "from benchmarks.host import code_version; print(code_version()[0])"
    run = [sys.executable, "-c", code]
    commit = subprocess.run(run, cwd=out / "source", capture_output=True, text=True).stdout
    assert re.fullmatch(r"[0-9a-f]{40}\n", commit)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # no installed packages
    python.chmod(0o755)
    monkeypatch.setenv("PYTHON", str(python))
    done = subprocess.run([out / "run"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 3
    assert "required: numpy is not installed" in done.stdout
    assert "required: scipy is not installed" in done.stdout
    python.write_text(
        f'#!/bin/sh\n[ "$3" = benchmarks.gpu ] && exec echo "$@"\n'
        f'[ "${{2##*/}}" = preflight.py ] && exec echo "$2"\nexec {sys.executable} "$@"\n'
    )
    done = subprocess.run([out / "run", "preflight"], capture_output=True, text=True)
    assert done.stdout == f"{out}/source/benchmarks/gpu/preflight.py\n"
    for name in ("results", "results-2", "results-3"):
        done = subprocess.run([out / "run"], cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout == f"-P -m benchmarks.gpu --out {out / name}\n"
        (out / name).mkdir()
    (out / "run").write_text((out / "run").read_text().replace(version, "3.99"))
    done = subprocess.run([out / "run"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"the packages are for Python 3.99, but {python} is Python {version}" in done.stderr


@needs_git
def test_bundle_that_fails_leaves_no_folder(tmp_path, capsys, small_data):
    out = tmp_path / "bundle"
    assert bundle.main(["--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install … failed: " in line
    assert not out.exists()
    out.mkdir()
    assert bundle.main(["--out", str(out)]) == 2
    assert "exists already; remove it or choose another --out" in capsys.readouterr().err


# ------------------------------------------------------------------------------------- packages


def test_modules_import_only_packages_of_such_a_machine_and_of_the_bundle():
    """An import of another package would make pytest fail to collect tests on such a machine."""
    folders = (*preflight.FOLDERS, "tests")
    own = {*folders, *(path.stem for path in (ROOT / "docs" / "tutorial").glob("*.py"))}
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    names = set().union(*map(preflight.imported_packages, paths))
    names -= own | set(sys.stdlib_module_names)
    distributions = importlib.metadata.packages_distributions()
    available = packages_in("machine.txt") | packages_in("wheels.txt")
    missing = {
        name
        for name in names - {"cupy", "cpuinfo"}  # their distributions have several names
        if not {re.sub("[_.]", "-", found.lower()) for found in distributions.get(name, [name])}
        & available
    }
    assert missing == set()


def test_preflight_knows_every_module():
    names = set(preflight.modules())
    assert {"backends", "backends.cupy.epoch", "mnist_accel.train", "benchmarks.host"} <= names
    assert not {"benchmarks.gpu.unpooled_memory", "mnist_accel.__main__"} & names


@pytest.fixture
def own_modules(tmp_path, monkeypatch):
    """A function that writes modules, which the check then imports in place of the project's."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(preflight, "PROGRAMS", ())
    monkeypatch.setattr(preflight, "ROOT", tmp_path)
    monkeypatch.setattr(preflight, "missing_data", lambda: "")

    def write(**sources: str) -> None:
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setattr(preflight, "modules", lambda: iter(sources))

    return write


def test_preflight_reports_all_missing_packages(own_modules, capsys):
    own_modules(
        our_first="import no_such_package.part\nfrom no_such_either import name",
        our_second="import no_such_package.part",
        our_third="raise OSError('libcudart.so:\\n  cannot open')",
        our_torch_part="import no_such_torch\nimport no_such_either",
    )
    assert preflight.main() == 3
    assert capsys.readouterr().out.splitlines() == [
        "required: no_such_either is not installed; needed by our_first and 1 more",
        "required: no_such_package is not installed; needed by our_first and 1 more",
        "optional: no_such_torch is not installed; needed by our_torch_part",
        "required: OSError: libcudart.so: cannot open; needed by our_third",
    ]


def test_preflight_needs_the_data_but_no_optional_package(own_modules, monkeypatch, capsys):
    own_modules(our_torch_part="import no_such_torch")
    assert preflight.main() == 0
    monkeypatch.setattr(preflight, "missing_data", lambda: "MNIST is missing")
    assert preflight.main() == 4
    assert capsys.readouterr().out.endswith("required: MNIST is missing\n")


@pytest.mark.slow
def test_preflight_passes_on_this_machine():
    if not importlib.util.find_spec("cupy"):
        pytest.skip("CuPy is not installed")
    command = [sys.executable, "-m", "benchmarks.gpu.preflight"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# ---------------------------------------------------------------------------------------- smoke


@pytest.fixture
def few_images(mnist: Dataset, monkeypatch) -> Dataset:
    few = replace(mnist, x_train=mnist.x_train[:600], t_train=mnist.t_train[:600])
    monkeypatch.setattr(smoke, "load_dataset", lambda name: few)
    return few


def test_a_second_of_training_lowers_the_loss(few_images):
    row = smoke.train(
        "two-layer", get_backend("numpy"), few_images.x_train, few_images.t_train, seconds=0.3
    )
    assert row.passed
    assert row.first_loss == pytest.approx(2.3, abs=0.05)
    assert 0 < row.step_us < 1e6
    assert row.first_call_s > 0


def test_recipes_are_trained_although_one_fails(few_images, tmp_path, monkeypatch, capsys):
    """Each recipe has a process of its own, here simulated."""

    def rows_of(module: str, *arguments: str, option: str, limit_s: float):
        recipe = arguments[arguments.index("--recipe") + 1]
        if recipe == "backprop":
            return [], "no result within 30 s"
        out = tmp_path / f"{recipe}.json"
        assert smoke.main([*arguments, option, str(out)]) == 0
        return json.loads(out.read_text()), ""

    monkeypatch.setattr(smoke, "rows_of", rows_of)
    monkeypatch.setattr(
        smoke, "RECIPES", {name: smoke.RECIPES[name] for name in ("backprop", "fcnn")}
    )
    out = tmp_path / "smoke.json"
    assert smoke.main(["--out", str(out), "--backend", "numpy", "--seconds", "0.1"]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line not in smoke.HEADER]
    backprop, *_, fcnn = lines
    assert backprop == "| backprop | | | | | | **failed**: no result within 30 s |"
    assert re.match(r"\| fcnn \| 600 \| \d+\.\d\d s \| \d+ \| \d+\.\d µs \| \d\.\d{4} \| ", fcnn)
    assert [row["recipe"] for row in json.loads(out.read_text())] == ["backprop", "fcnn"]


def test_recipe_that_raises_gives_a_row(few_images, tmp_path, monkeypatch):
    def create_model(name: str, **options: object) -> Network:
        raise MemoryError("out of\nmemory")

    monkeypatch.setattr(smoke, "create_model", create_model)
    out = tmp_path / "smoke.json"
    arguments = ["--out", str(out), "--backend", "numpy", "--recipe", "fcnn"]
    assert smoke.main(arguments) == 1
    (row,) = json.loads(out.read_text())
    assert row["error"] == "MemoryError: out of memory"


PARTS = """
import json, os, sys, time
what, _, out = sys.argv[1:]
if what != "silent":
    open(out, "w").write(json.dumps([{"part": what}]))
if what == "hang":
    time.sleep(60)
if what == "crash":
    os.kill(os.getpid(), 9)
sys.exit("it failed" if what == "silent" else 6)
"""


@pytest.mark.posix
def test_part_in_its_own_process_gives_the_rows_that_it_has_written(tmp_path, monkeypatch):
    (tmp_path / "parts.py").write_text(PARTS)
    monkeypatch.setattr(own_process, "ROOT", tmp_path)
    results = {
        what: own_process.rows_of("parts", what, option="--out", limit_s=2)
        for what in ("differ", "silent", "hang", "crash")
    }
    assert results == {
        "differ": ([{"part": "differ"}], ""),
        "silent": ([], "exit code 1: it failed"),
        "hang": ([{"part": "hang"}], "no result within 2 s"),
        "crash": ([{"part": "crash"}], "exit code -9: no output"),
    }
