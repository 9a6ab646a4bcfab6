"""The doctor reports what works on a machine, what does not, and how to fix it."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from backends import Availability, pip, unset
from backends.numba.kernels import chunk
from mnist_accel.autotune import cache as autotune_cache
from mnist_accel.commands import main
from mnist_accel.console import activity
from mnist_accel.data.sources import digests
from mnist_accel.diagnostics import doctor as doctor_module
from mnist_accel.diagnostics.checks import computation, installation
from mnist_accel.diagnostics.findings import Finding, threads_finding
from mnist_accel.util.files import cache_folder
from mnist_accel.util.text import count
from tests.support.planted_errors import plant
from tests.support.published_files import TINY, TRAIN_IMAGES, corrupt, fill

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user without data and without a GPU. MNIST is replaced by a tiny data set."""
    for variable in ("MNIST_ACCEL_DATA", "KERAS_HOME", *computation.BLAS_VARIABLES):
        monkeypatch.delenv(variable, raising=False)
    home = tmp_path / "home"
    work = home / "place"
    work.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.chdir(work)
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(digests, "MNIST", TINY)
    monkeypatch.setattr(autotune_cache, "cache_folder", cache_folder)
    return home


@pytest.fixture
def doctor(capsys):
    """Run the command with --json, check its exit code and return its findings by name."""

    def doctor(expected_exit_code=0):
        exit_code = main(["doctor", "--json"])
        out, err = capsys.readouterr()
        report = json.loads(out)
        assert err == ""
        assert exit_code == report["exit_code"] == expected_exit_code
        return {finding["name"]: finding for finding in report["findings"]}

    return doctor


def test_missing_gpu_and_data_are_not_errors(doctor, home):
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
        "compiled training numba": "ok",
        "Numba cache": "ok",
        "NumPy's BLAS": "ok",
        "data": "WARN",
        "data cache": "ok",
        "autotune cache": "ok",
        "run folder": "ok",
    }
    assert found["data"]["remedy"] == "python -m mnist_accel data"
    assert found["backend auto"]["detail"].startswith("numba: ")
    assert sorted(home.rglob("*")) == before  # nothing was downloaded or created


def test_wrong_compiled_training_is_a_problem(doctor, monkeypatch):
    plant(monkeypatch, "half the learning rate")
    found = doctor()["compiled training numba"]
    assert found["status"] == "problem"
    assert found["detail"].startswith("differs from NumPy: two-layer at step 1 (W1 after")


def test_exactly_the_warnings_and_problems_have_a_remedy(doctor, monkeypatch):
    monkeypatch.setenv("MNIST_ACCEL_DATA", "nowhere")
    for finding in doctor(expected_exit_code=4).values():
        assert bool(finding["remedy"]) == (finding["status"] in ("WARN", "problem"))
        assert "\n" not in finding["detail"] + finding["remedy"]


def test_table_contains_every_finding(doctor, capsys):
    found = doctor()
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    for name, finding in found.items():
        number = next(i for i, line in enumerate(lines) if f"  {name}  " in line)
        words = [finding["status"], *name.split(), *finding["detail"].split()]
        if finding["remedy"]:
            words += ["->", *finding["remedy"].split()]
        assert " ".join(lines[number:]).split()[: len(words)] == words
    for line in lines:  # only a single word, such as a path, may be longer
        assert len(line) <= 100 or " " not in line.strip().rpartition("  ")[2]
    statuses = [finding["status"] for finding in found.values()]
    warnings = count(statuses.count("WARN"), "warning")
    assert lines[-1] == f"{statuses.count('ok')} ok, {warnings}, 0 problems"


def test_the_checks_are_not_silent(monkeypatch, capsys):
    monkeypatch.setattr(activity, "DELAY_SECONDS", 0.0)
    assert main(["doctor"]) == 0
    assert "running checks: finished after " in capsys.readouterr().err


def test_home_folder_is_abbreviated(doctor, home):
    fill(home / ".cache" / "mnist_accel" / "mnist")
    found = doctor()
    assert found["data"]["detail"] == "MNIST is in ~/.cache/mnist_accel/mnist, intact"
    assert found["run folder"]["detail"] == "~/place/runs is writable"
    assert str(home) not in json.dumps(found)


def test_corrupt_cache_is_a_warning(doctor, home):
    cache = home / ".cache" / "mnist_accel" / "mnist"
    fill(cache)
    corrupt(cache / TRAIN_IMAGES)
    data = doctor()["data"]
    assert data["status"] == "WARN"
    assert "will be fetched again" in data["detail"]
    assert "with SHA-256" in data["detail"]


def test_copy_of_another_library_is_found(doctor, home):
    fill(home / "data" / "MNIST" / "raw")
    data = doctor()["data"]
    assert data["status"] == "ok"
    assert "copy in ~/data/MNIST/raw" in data["detail"]


def test_folder_that_the_user_gives_is_checked(doctor, home, monkeypatch):
    folder = home / "mine"
    monkeypatch.setenv("MNIST_ACCEL_DATA", str(folder))
    data = doctor(expected_exit_code=4)["data"]
    assert data["status"] == "problem"
    assert "~/mine does not exist" in data["detail"]
    assert data["remedy"].endswith("unset MNIST_ACCEL_DATA")
    fill(folder)
    assert doctor()["data"]["status"] == "ok"


def test_unwritable_folders_are_reported(doctor, home):
    for file in (home / "place" / "runs", home / ".cache"):
        file.write_text("a file in place of the folder")
    found = doctor()
    assert found["run folder"]["status"] == "problem"
    assert "~/place/runs is not writable (Not a directory)" in found["run folder"]["detail"]
    assert "--out" in found["run folder"]["remedy"]
    assert found["data cache"]["status"] == "WARN"
    assert "MNIST_ACCEL_DATA" in found["data cache"]["remedy"]
    assert found["autotune cache"]["status"] == "WARN"
    assert "~/.cache/mnist_accel/trials is not writable" in found["autotune cache"]["detail"]


def test_two_cupy_wheels_are_a_problem(doctor, tmp_path, monkeypatch):
    for name in ("cupy-cuda11x", "cupy_cuda12x"):  # both spellings occur in metadata
        info = tmp_path / f"{name.replace('-', '_')}-13.6.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 13.6.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    wheels = doctor()["CuPy wheels"]
    assert wheels["status"] == "problem"
    assert wheels["detail"] == "cupy-cuda11x and cupy-cuda12x overwrite each other's files"
    assert wheels["remedy"] == (
        f"{pip('uninstall', '-y', 'cupy-cuda11x', 'cupy-cuda12x')} && "
        f"{pip('install', 'cupy-cuda12x[ctk]')}"
    )


def test_unusable_gpu_is_a_problem_but_not_an_error(doctor, monkeypatch):
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


def test_broken_plug_in_is_a_warning(doctor, tmp_path, monkeypatch):
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mnist_accel.backends]\nbroken = no_such_module:B\n")
    monkeypatch.syspath_prepend(tmp_path)
    plug_in = doctor()["backend broken"]
    assert plug_in["status"] == "WARN"
    assert "No module named 'no_such_module'" in plug_in["detail"]


def test_exit_code_is_3_if_no_backend_can_run(doctor, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    broken = Availability(ok=False, reason="a reason", remedy="a remedy")
    monkeypatch.setattr("backends.numpy.probe.availability", lambda: broken)
    found = doctor(expected_exit_code=3)
    assert found["backend auto"]["status"] == "problem"
    assert found["Numba kernels"]["status"] == "skipped"


def test_numba_kernel_with_wrong_results_is_a_warning(doctor, monkeypatch):
    monkeypatch.setattr(chunk, "copy_blocks", lambda blocks, source, target: None)
    found = doctor()
    assert found["backend numba"]["status"] == "WARN"
    assert "a compiled kernel gave a wrong result" in found["backend numba"]["detail"]
    assert found["backend numba"]["remedy"].startswith(pip("install"))
    assert found["backend auto"]["detail"].startswith("numpy: ")
    assert found["Numba kernels"]["status"] == "skipped"


@pytest.mark.parametrize(
    ("setting", "name", "status", "detail"),
    [
        ("NUMBA_DISABLE_JIT=1", "backend numba", "WARN", "NUMBA_DISABLE_JIT is set"),
        ("NUMBA_NUM_THREADS=0", "Numba kernels", "skipped", "the backend numba cannot run"),
        ("NUMBA_NUM_THREADS=65", "Numba threads", "WARN", "(NUMBA_NUM_THREADS=65)"),
    ],
)
def test_harmful_environment_variables_of_numba_are_named(setting, name, status, detail, home):
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


def test_threads_are_compared_with_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads_finding("BLAS", 8, "x", ("OMP_NUM_THREADS",)).status == "ok"
    few = threads_finding("BLAS", 2, "x", ("MKL_NUM_THREADS", "OMP_NUM_THREADS"))
    assert (few.status, few.remedy) == ("WARN", "unset OMP_NUM_THREADS")
    assert few.detail == "x: 2 threads on 8 cores (OMP_NUM_THREADS=2)"
    assert threads_finding("BLAS", 2, "x", ("MKL_NUM_THREADS",)).status == "ok"
    monkeypatch.setattr(sys, "platform", "win32")
    assert unset("A", "B") == "Remove-Item Env:A,Env:B"  # in PowerShell


def test_missing_package_is_a_problem(doctor, monkeypatch):
    monkeypatch.setattr(installation, "PACKAGES", ("numpy", "no-such-package"))
    findings = list(installation.packages())
    assert [finding.status for finding in findings] == ["ok", "problem"]
    assert findings[1].detail == "missing: no-such-package"
    assert findings[1].remedy == pip("install", "no-such-package")


def test_checked_packages_are_the_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [requirement.partition(">")[0] for requirement in project["dependencies"]]
    assert sorted(required) == list(installation.PACKAGES)


def test_document_on_platforms_lists_the_packages_for_systems_without_numba():
    page = (ROOT / "docs" / "how-to" / "platforms.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"pip install (argcomplete .*)", page)
    assert listed.split() == [name for name in installation.PACKAGES if name != "numba"]


def test_check_that_raises_does_not_stop_the_others(doctor, monkeypatch):
    def broken_check():
        yield Finding("first half", "ok", "there")
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(doctor_module, "CHECKS", (broken_check, computation.backends))
    found = doctor()
    assert found["first half"]["status"] == "ok"
    assert found["broken check"]["status"] == "problem"
    assert found["broken check"]["detail"] == "the check failed (RuntimeError: two lines)"
    assert found["backend auto"]["status"] == "ok"
