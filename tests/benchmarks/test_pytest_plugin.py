"""`pytest benchmarks/` works with the options of pytest-benchmark."""

import json

import pytest

from benchmarks.session.settings import RunRequest, resolve
from benchmarks.storage.results import load_results
from benchmarks.suite.cases import (
    inference_cases,
)
from tests.support.benchmark_runs import start_python

SMALLEST = (
    *("benchmarks", "--levels", "operations", "--contenders", "numpy", "--passes", "1"),
    *("-k", "sgd_update"),
)


def test_error_is_recorded_once_and_other_contenders_are_measured(tmp_path):
    journal = tmp_path / "out.json.journal"
    choice = ("--levels", "operations", "--contenders", "numpy,loops", "--passes", "2")
    process = start_python(
        "pytest", "benchmarks", *choice, "-k", "sgd_update", "--journal", journal
    )
    printed, err = process.communicate(timeout=200)
    assert process.returncode == 0, printed + err
    assert "2 passed, 2 skipped" in printed
    (row,) = load_results([journal]).absent
    assert (row.contender, row.reason) == ("loops", "loops does not implement this operation")
    (measurement,) = load_results([journal]).measurements.values()
    assert [turn.process[1] for turn in measurement.rounds] == [0, 1]


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
        # Slow, because `python -m benchmarks run` has the same options and refuses the same.
        *(
            pytest.param(options, message, marks=pytest.mark.slow)
            for options, message in (
                (["--contenders", "tpu"], "unknown contender 'tpu'; choose from "),
                (["--levels", "accuracy"], "the profile quick has no case of the level accuracy"),
                (["--passes", "0"], "--passes must be at least 1, got 0"),
            )
        ),
        (["--processes", "7"], "--processes must be 1 to the number of passes, 6; got 7"),
    ],
)
def test_pytest_refuses_invalid_options(options, message):
    process = start_python("pytest", "benchmarks", *options)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4
    assert err.startswith(f"ERROR: {message}")
    assert len(err.strip().splitlines()) == 1
