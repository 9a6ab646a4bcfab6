import hashlib
import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backends import Availability, get_backend
from backends.numba.kernels import pooling
from mnist_accel.autotune import cache as trial_cache
from mnist_accel.commands import main
from mnist_accel.data.idx import format_idx
from mnist_accel.data.sources import digests
from mnist_accel.data.sources.digests import FILE_NAMES, PublishedSet
from mnist_accel.diagnostics import doctor as diagnosis
from mnist_accel.nn import AvgPool2d, Dropout, Flatten, Linear, Tanh
from mnist_accel.recipes.models import RECIPES, create_model
from mnist_accel.util.files import cache_folder
from mnist_accel.util.text import abbreviate_home

ROOT = Path(__file__).parents[2]

ARRAYS = [np.full((2, 28, 28), 7, np.uint8), np.array([3, 4], np.uint8)] * 2
FILES = {name: format_idx(array) for name, array in zip(FILE_NAMES, ARRAYS, strict=True)}
TINY = PublishedSet(
    "mnist", {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in FILES.items()}
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user without data and without a GPU, whose MNIST has two images."""
    for variable in ("MNIST_ACCEL_DATA", "KERAS_HOME", *diagnosis._BLAS_VARIABLES):
        monkeypatch.delenv(variable, raising=False)
    home = tmp_path / "home"
    work = home / "place"
    work.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.chdir(work)
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(digests, "MNIST", TINY)
    monkeypatch.setattr(trial_cache, "cache_folder", cache_folder)
    return home


@pytest.fixture
def doctor(capsys):
    """Run the command for its exit code and its findings by name."""

    def doctor(expected_exit_code=0):
        exit_code = main(["doctor", "--json"])
        out, err = capsys.readouterr()
        report = json.loads(out)
        assert err == ""
        assert exit_code == report["exit_code"] == expected_exit_code
        return {finding["name"]: finding for finding in report["findings"]}

    return doctor


def put_mnist(folder):
    folder.mkdir(parents=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)


def test_missing_gpu_and_data_are_no_errors(doctor, home):
    before = sorted(home.rglob("*"))
    found = doctor()
    assert {name: finding["status"] for name, finding in found.items()} == {
        "Python": "ok",
        "mnist-accel": "ok",
        "packages": "ok",
        "CuPy": "WARN",
        "GPU: driver": "skipped",
        "GPU: device": "skipped",
        "GPU: NVRTC": "skipped",
        "GPU: cuBLAS": "skipped",
        "GPU: test kernel": "skipped",
        "backend numba": "ok",
        "backend numpy": "ok",
        "backend array-api-strict": found["backend array-api-strict"]["status"],
        "backend torch": found["backend torch"]["status"],
        "backend cupy-emulated": found["backend cupy-emulated"]["status"],
        "backend auto": "ok",
        "Numba kernels": "ok",
        "Numba threads": "ok",
        "Numba cache": "ok",
        "NumPy's BLAS": "ok",
        "data": "WARN",
        "data cache": "ok",
        "trials": "ok",
        "run folder": "ok",
    }
    assert found["data"]["remedy"] == "python -m mnist_accel data"
    assert found["backend auto"]["detail"].startswith("numba: ")
    assert sorted(home.rglob("*")) == before  # nothing was fetched, nothing was made


def test_whatever_is_wrong_has_a_remedy(doctor, monkeypatch):
    monkeypatch.setenv("MNIST_ACCEL_DATA", "nowhere")
    for finding in doctor(expected_exit_code=4).values():
        assert bool(finding["remedy"]) == (finding["status"] in ("WARN", "problem"))
        assert "\n" not in finding["detail"] + finding["remedy"]


def test_table_says_the_same_a_line_each(doctor, capsys):
    found = doctor()
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    for name, finding in found.items():
        number = next(i for i, line in enumerate(lines) if f"  {name}  " in line)
        told = [finding["status"], *name.split(), *finding["detail"].split()]
        if finding["remedy"]:
            told += ["->", *finding["remedy"].split()]
        assert " ".join(lines[number:]).split()[: len(told)] == told
    for line in lines:  # what is longer is a single word, such as a path
        assert len(line) <= 100 or " " not in line.strip().rpartition("  ")[2]
    statuses = [finding["status"] for finding in found.values()]
    assert lines[-1] == (
        f"{statuses.count('ok')} ok, {statuses.count('WARN')} warnings, 0 problems"
    )


def test_home_folder_is_not_told(doctor, home):
    put_mnist(home / ".cache" / "mnist_accel" / "mnist")
    found = doctor()
    assert found["data"]["detail"] == "MNIST is in ~/.cache/mnist_accel/mnist, and intact"
    assert found["run folder"]["detail"] == "~/place/runs can be written"
    assert str(home) not in json.dumps(found)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("/home/ann", "~"),
        ("/home/ann/x: no; /home/ann, (/home/ann)", "~/x: no; ~, (~)"),
        ("/home/anna/x", "/home/anna/x"),
        ("/mnt/home/ann/x", "/mnt/home/ann/x"),
    ],
)
def test_only_the_home_folder_is_shortened(text, short, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    assert abbreviate_home(text) == short


def test_corrupt_cache(doctor, home):
    cache = home / ".cache" / "mnist_accel" / "mnist"
    put_mnist(cache)
    (cache / FILE_NAMES[0]).write_bytes(FILES[FILE_NAMES[0]][:-1] + b"\0")
    data = doctor()["data"]
    assert data["status"] == "WARN"
    assert "is fetched anew" in data["detail"]
    assert "found SHA-256" in data["detail"]


def test_copy_of_another_library(doctor, home):
    put_mnist(home / "data" / "MNIST" / "raw")
    data = doctor()["data"]
    assert data["status"] == "ok"
    assert "copy in ~/data/MNIST/raw" in data["detail"]


def test_folder_that_the_user_names(doctor, home, monkeypatch):
    folder = home / "mine"
    monkeypatch.setenv("MNIST_ACCEL_DATA", str(folder))
    data = doctor(expected_exit_code=4)["data"]
    assert data["status"] == "problem"
    assert "~/mine does not exist" in data["detail"]
    assert data["remedy"].endswith("unset MNIST_ACCEL_DATA")
    put_mnist(folder)
    assert doctor()["data"]["status"] == "ok"


def test_folders_that_cannot_be_written(doctor, home):
    for file in (home / "place" / "runs", home / ".cache"):
        file.write_text("a file, where a folder should be")
    found = doctor()
    assert found["run folder"]["status"] == "problem"
    assert "~/place/runs cannot be written (Not a directory)" in found["run folder"]["detail"]
    assert "--out" in found["run folder"]["remedy"]
    assert found["data cache"]["status"] == "WARN"
    assert "MNIST_ACCEL_DATA" in found["data cache"]["remedy"]
    assert found["trials"]["status"] == "WARN"
    assert "~/.cache/mnist_accel/trials cannot be written" in found["trials"]["detail"]


def test_two_cupy_wheels(doctor, tmp_path, monkeypatch):
    for name in ("cupy-cuda11x", "cupy_cuda12x"):  # as their metadata may be written
        info = tmp_path / f"{name.replace('-', '_')}-13.6.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 13.6.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    wheels = doctor()["CuPy wheels"]
    assert wheels["status"] == "problem"
    assert wheels["detail"] == "cupy-cuda11x and cupy-cuda12x overwrite each other's files"
    assert wheels["remedy"] == (
        'pip uninstall -y cupy-cuda11x cupy-cuda12x && pip install "cupy-cuda12x[ctk]"'
    )


def test_broken_gpu_is_a_problem_and_no_error(doctor, monkeypatch):
    def probe_cupy():
        yield "CuPy", Availability(ok=True, reason="CuPy 14.2.0")
        yield "driver", Availability(ok=True, reason="CUDA 12.8")
        yield "device", Availability(ok=True, reason="NVIDIA H200, sm_90")
        yield "NVRTC", Availability(ok=False, reason="no libnvrtc", remedy="pip install it")
        yield "cuBLAS", None

    monkeypatch.setattr("backends.probe_cupy", probe_cupy)
    found = doctor()
    assert found["GPU: device"]["detail"] == "NVIDIA H200, sm_90"
    assert found["GPU: NVRTC"]["status"] == "problem"
    assert found["GPU: NVRTC"]["remedy"] == "pip install it"
    assert found["GPU: cuBLAS"]["status"] == "skipped"


def test_broken_plug_in(doctor, tmp_path, monkeypatch):
    info = tmp_path / "unlucky-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unlucky\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mnist_accel.backends]\nunlucky = no_such_module:B\n")
    monkeypatch.syspath_prepend(tmp_path)
    plug_in = doctor()["backend unlucky"]
    assert plug_in["status"] == "WARN"
    assert "No module named 'no_such_module'" in plug_in["detail"]


def test_no_backend_at_all(doctor, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    broken = Availability(ok=False, reason="no numbers", remedy="count")
    monkeypatch.setattr("backends.numpy.probe.availability", lambda: broken)
    found = doctor(expected_exit_code=3)
    assert found["backend auto"]["status"] == "problem"
    assert found["Numba kernels"]["status"] == "skipped"


def test_wrong_numba_kernel(doctor, monkeypatch):
    monkeypatch.setattr(pooling, "avg_pool2d", lambda x, size, stride, y, first, last: y.fill(0))
    found = doctor()
    assert found["backend numba"]["status"] == "WARN"
    assert "a compiled kernel gave a wrong result" in found["backend numba"]["detail"]
    assert found["backend numba"]["remedy"].startswith("pip install")
    assert found["backend auto"]["detail"].startswith("numpy: ")
    assert found["Numba kernels"]["status"] == "skipped"


@pytest.mark.parametrize(
    ("setting", "name", "status", "detail"),
    [
        ("NUMBA_DISABLE_JIT=1", "Numba kernels", "WARN", "they run as Python"),
        ("NUMBA_NUM_THREADS=0", "Numba kernels", "skipped", "Numba cannot be used"),
        ("NUMBA_NUM_THREADS=65", "Numba threads", "WARN", "(NUMBA_NUM_THREADS=65)"),
    ],
)
def test_environment_that_spoils_numba(setting, name, status, detail, home):
    variable, _, value = setting.partition("=")
    process = subprocess.run(
        [sys.executable, "-m", "mnist_accel", "doctor", "--json"],
        env={**os.environ, variable: value, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = {finding["name"]: finding for finding in json.loads(process.stdout)["findings"]}
    assert found[name]["status"] == status
    assert detail in found[name]["detail"]
    assert found[name]["remedy"] == f"unset {variable}"


def test_threads_are_compared_with_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert diagnosis._threads("BLAS", 8, "x", ("OMP_NUM_THREADS",)).status == "ok"
    few = diagnosis._threads("BLAS", 2, "x", ("MKL_NUM_THREADS", "OMP_NUM_THREADS"))
    assert (few.status, few.remedy) == ("WARN", "unset OMP_NUM_THREADS")
    assert few.detail == "x: 2 on 8 cores (OMP_NUM_THREADS=2)"
    assert diagnosis._threads("BLAS", 2, "x", ("MKL_NUM_THREADS",)).status == "ok"


def test_missing_package(doctor, monkeypatch):
    monkeypatch.setattr(diagnosis, "PACKAGES", ("numpy", "no-such-package"))
    findings = list(diagnosis._packages())
    assert [finding.status for finding in findings] == ["ok", "problem"]
    assert findings[1].detail == "missing: no-such-package"
    assert findings[1].remedy == "pip install no-such-package"


def test_packages_are_those_that_are_required():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [requirement.partition(">")[0] for requirement in project["dependencies"]]
    assert sorted(required) == list(diagnosis.PACKAGES)


def test_check_that_fails_spoils_no_other(doctor, monkeypatch):
    def _broken_thing():
        yield diagnosis.Finding("first half", "ok", "there")
        raise RuntimeError("out of\nluck")

    monkeypatch.setattr(diagnosis, "CHECKS", (_broken_thing, diagnosis._backends))
    found = doctor()
    assert found["first half"]["status"] == "ok"
    assert found["broken thing"]["status"] == "problem"
    assert found["broken thing"]["detail"] == "cannot be looked at (RuntimeError: out of luck)"
    assert found["backend auto"]["status"] == "ok"


def explain(capsys, *arguments):
    """Run the explanation of a recipe, which must succeed, and return what it prints."""
    assert main(["doctor", "--explain", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_explanation_of_a_recipe(capsys):
    lines = [" ".join(line.split()) for line in explain(capsys, "lenet").splitlines()]
    assert lines[0].startswith("lenet: 1×28×28 → conv2d 6×28×28 → relu")
    assert lines[1] == "softmax cross entropy, adam, batches of 64"
    threads = get_backend("numba").max_threads
    for line in (
        "cupy – cannot run here: CuPy is not installed",
        f"numba {threads} whole epochs in one compiled call",
        "1 conv2d 5×5, padding 2 relu, max_pool2d 2×2 1×28×28 → 6×14×14",
        "2 conv2d 5×5 relu, max_pool2d 2×2 6×14×14 → 16×5×5",
        "3 linear relu 400 → 120",
        "5 linear – 84 → 10",
    ):
        assert line in lines
    assert "operation by operation: the backend numpy has no compiled epochs" in " ".join(lines)
    assert len(lines) <= 24  # one screen
    assert not any(line.startswith("numba: stage") for line in lines)


@pytest.mark.parametrize("model", RECIPES)
def test_lists_are_explained_where_they_are_used(capsys, model):
    takes_lists = "conv2d" not in create_model(model, backend="numpy").kinds
    line = "numba: stage 1 takes lists of the pixels that are not 0, where fewer than 35% are"
    assert (line in explain(capsys, model).splitlines()) == takes_lists


def test_explanation_as_json(capsys):
    report = json.loads(explain(capsys, "cnn", "--json"))
    assert report["stages"] == [
        {"layer": "conv2d 3×3", "fused": "max_pool2d 2×2", "shapes": "1×28×28 → 8×13×13"},
        {"layer": "linear", "fused": "–", "shapes": "1352 → 10"},
    ]
    assert [way["backend"] for way in report["ways"]][:3] == ["cupy", "numba", "numpy"]


def test_explanation_of_what_has_no_compiled_form(capsys, monkeypatch):
    """No recipe is such a network, but one may become it."""

    def build(hidden_sizes, activation):
        return [Dropout(0.5), AvgPool2d(2), Tanh(), Flatten(), Linear(10)]

    recipe = replace(RECIPES["cnn"], build=build, batch_size=0)
    monkeypatch.setitem(RECIPES, "cnn", recipe)
    out = explain(capsys, "cnn")
    assert "softmax cross entropy, sgd, the whole set at every step" in out
    reason = "the masks of dropout are drawn on the host at every step"
    assert (
        " ".join(out.split()).count(reason) >= 3
    )  # why on each backend, and why there are no stages
    assert "This recipe has no compiled form" in out
    monkeypatch.setitem(
        RECIPES, "cnn", replace(recipe, build=lambda *_: build(*_)[1:], batch_size=1)
    )
    lines = [" ".join(line.split()) for line in explain(capsys, "cnn").splitlines()]
    assert "softmax cross entropy, sgd, one image at a time" in lines
    assert "1 avg_pool2d 2×2 – 1×28×28 → 1×14×14" in lines
    assert "2 tanh – 1×14×14 → 1×14×14" in lines


def test_unknown_recipe_is_wrong_usage(capsys):
    assert main(["doctor", "--explain", "lanet"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "unknown model 'lanet'; choose fcnn" in err
    assert "did you mean 'lenet'?" in err
    assert len(err.splitlines()) == 1
