"""`pytest benchmarks/` works with the options of pytest-benchmark."""

import json
import signal
from itertools import pairwise

import pytest

from benchmarks.session import runner
from benchmarks.session.settings import RunRequest, resolve
from benchmarks.storage.results import load_results
from benchmarks.suite.cases import (
    inference_cases,
    operation_cases,
)
from tests.support.benchmark_runs import start_python

SMALLEST = (
    *("benchmarks", "--levels", "operations", "--contenders", "numpy", "--passes", "1"),
    *("-k", "sgd_update"),
)


def test_journal_is_kept_if_the_result_file_cannot_be_written(tmp_path):
    journal, out = tmp_path / "journal", tmp_path / "file" / "out.json"
    out.parent.touch()
    process = start_python("pytest", *SMALLEST, "--journal", journal, "--results", out)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 4
    assert f"cannot write {out}: " in err
    assert journal.read_text().count('"measured"') == 1


CRASHING = """
import time
from pathlib import Path
from backends import register
from backends.numpy.backend import NumpyBackend

class Crashing(NumpyBackend):
    name = "crashing"

    def max_pool2d(self, *arrays, **settings):
        with Path("CALLS").open("a") as file:
            file.write("called\\n")
        raise RuntimeError("no such pool\\nand much more")

    def conv2d(self, *arrays, **settings):
        raise MemoryError

    def linear(self, *arrays):
        time.sleep(60)

register(Crashing)
"""


def test_errors_are_recorded_once_and_printed(tmp_path):
    calls, out = tmp_path / "calls", tmp_path / "out.json"
    (tmp_path / "crashing_backend.py").write_text(CRASHING.replace("CALLS", str(calls)))
    choice = ("--levels", "operations", "--contenders", "crashing", "--passes", "2")
    cases = ("-k", "max_pool2d-forward or forward and not relu")
    process = start_python(
        *("pytest", "benchmarks", "-p", "crashing_backend", *choice, *cases, "--timeout", "2"),
        *("--results", out),
        path=tmp_path,
    )
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 1, printed
    results = load_results([out])
    failed = {row.case.split()[0]: row.reason for row in results.failed}
    assert failed.pop("linear").startswith("Failed: Timeout")
    assert failed == {"max_pool2d": "RuntimeError: no such pool", "conv2d": "MemoryError"}
    assert "RuntimeError: no such pool" in printed
    assert calls.read_text() == "called\n"
    measured = {row.case.network for row in results.measurements.values()}
    assert measured == {"softmax_cross_entropy", "sgd_update", "adam_update"}


KILLING = """
import os
import signal
from backends import register
from backends.numpy.backend import NumpyBackend

class Killing(NumpyBackend):
    name = "killing"

    def max_pool2d(self, *arrays, **settings):
        os.kill(os.getpid(), signal.SIGKILL)

register(Killing)
"""


@pytest.mark.posix
@pytest.mark.slow
def test_row_that_crashed_the_process_is_skipped_later(tmp_path):
    out, journal = tmp_path / "out.json", tmp_path / "out.json.journal"
    (tmp_path / "killing_backend.py").write_text(KILLING)
    command = (
        *("pytest", "benchmarks", "-p", "killing_backend", "--levels", "operations"),
        *("-k", "max_pool2d and forward and not relu or sgd_update", "--passes", "2"),
        *("--contenders", "killing", "--journal", journal, "--results", out),
    )
    killed = start_python(*command, path=tmp_path)
    killed.communicate(timeout=200)
    assert killed.returncode == -signal.SIGKILL
    assert runner.finish_run(out, journal, killed.returncode) == 4
    continued = start_python(*command, path=tmp_path)
    printed, _ = continued.communicate(timeout=200)
    assert continued.returncode == 1, printed
    results = load_results([out])
    (failed,) = results.failed
    assert failed.case.startswith("max_pool2d forward")
    assert failed.reason == "the process crashed"
    assert {row.case.network for row in results.measurements.values()} == {"sgd_update"}


def test_contender_left_out_of_quick_runs_is_absent_with_a_reason(tmp_path):
    journal = tmp_path / "journal"
    collect = ("pytest", "benchmarks", "--collect-only", "-q", "--journal", journal)
    process = start_python(*collect, "--levels", "inference,operations", "--passes", "1")
    printed, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert "torch-compile" not in printed
    rows = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert {row["case"] for row in rows} == {case.name for case in inference_cases("quick")}
    assert {(row["kind"], row["contender"]) for row in rows} == {("absent", "torch-compile")}
    assert all("name it in --contenders" in row["reason"] for row in rows)
    named = resolve(RunRequest(contenders="torch-compile"))
    assert (named.contenders, named.left_out) == (("torch-compile",), ())
    assert resolve(RunRequest(profile="full")).left_out == ()


@pytest.mark.slow
def test_files_of_pytest_benchmark_are_result_files(tmp_path):
    out, storage = tmp_path / "out.json", tmp_path / "storage"
    options = (f"--benchmark-json={out}", "--benchmark-autosave", f"--benchmark-storage={storage}")
    process = start_python("pytest", *SMALLEST, *options)
    printed, err = process.communicate(timeout=100)
    assert process.returncode == 0, printed + err
    assert "1 passed" in printed
    (saved,) = storage.rglob("*.json")
    for path in (out, saved):
        (row,) = load_results([path]).measurements.values()
        assert (row.case.network, row.contender) == ("sgd_update", "numpy")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--levels", "speed"], "unknown level 'speed'; choose from training,"),
        (["--contenders", "tpu"], "unknown contender 'tpu'; choose from "),
        (["--levels", "accuracy"], "the profile quick has no case of the level accuracy"),
        (["--passes", "0"], "--passes must be at least 1, got 0"),
    ],
)
def test_pytest_refuses_invalid_options(options, message):
    process = start_python("pytest", "benchmarks", *options)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4
    assert err.startswith(f"ERROR: {message}")
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_rows_of_all_passes_are_shuffled_together():
    choice = ("--levels", "operations", "--contenders", "numpy,numba", "--passes", "4")

    def order(seed):
        collect = ("pytest", "benchmarks", "--collect-only", "-q", *choice, "--order-seed", seed)
        printed, err = start_python(*collect).communicate(timeout=60)
        names = [line for line in printed.splitlines() if "::" in line]
        assert len(names) == 4 * 2 * len(operation_cases("quick")), err
        return names

    names = order(1)
    assert order(1) == names
    others = order(2)
    assert sorted(others) == sorted(names)
    assert others != names
    # Pass and contender change between successive measurements as often as by chance.
    for values, key in ((4, lambda name: name[-2]), (2, lambda name: "numba" in name)):
        changes = sum(key(one) != key(other) for one, other in pairwise(names))
        assert changes == pytest.approx(len(names) * (1 - 1 / values), rel=0.25)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    assert all({name[-2] for name in half} == set("0123") for half in halves)
