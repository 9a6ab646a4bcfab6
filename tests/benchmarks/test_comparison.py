"""Two runs are compared row by row."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.report.comparison import compare, compare_command
from benchmarks.storage.results import load_results
from mnist_accel.errors import UsageError
from tests.support.benchmark_files import KEY, SMALL, GeneratedResults, entry_index, write_document


def test_comparison_finds_exactly_the_regression(tmp_path, capsys):
    two = GeneratedResults(contenders=("numba", "torch-eager"))
    old = two.write(tmp_path / "old.json")
    slower = {("lenet, batch 64", "numba"): 1.2}
    new = replace(two, seed=1, slower=slower).write(tmp_path / "new.json")
    comparison = compare(load_results([old]), load_results([new]), np.random.default_rng(0))
    failing = {change.key for change in comparison.changes if change.fails(0.1)}
    assert failing == {("training", "lenet, batch 64", "numba")}
    assert compare_command(old, new, 0.10) == 1
    output = capsys.readouterr().out
    line = next(line for line in output.splitlines() if line.startswith("!"))
    assert "lenet, batch 64" in line
    assert "time / time of torch-eager" in line
    assert "FAILED: 1 by more than 10%" in output
    # Without a bound, or with a wider one, the comparison does not fail.
    assert compare_command(old, new, None) == 0
    assert compare_command(old, new, 0.5) == 0


def test_slower_machine_is_no_regression(tmp_path):
    two = GeneratedResults(contenders=("numba", "jax"))
    old = two.write(tmp_path / "old.json")
    day = dict.fromkeys(two.contenders, 1.3)
    new = replace(two, seed=1, slower=day).write(tmp_path / "new.json")
    assert compare_command(old, new, 0.10) == 0


def test_plain_times_are_compared_without_a_baseline(tmp_path, capsys):
    alone = GeneratedResults(contenders=("numba",))
    old = alone.write(tmp_path / "old.json")
    new = replace(alone, seed=1, slower={"numba": 1.3}).write(tmp_path / "new.json")
    assert compare_command(old, new, 0.10) == 1
    assert "time / time of" not in capsys.readouterr().out


def test_baseline_of_another_version_is_not_used(tmp_path):
    old = SMALL.write(tmp_path / "old.json")
    document = SMALL.document()
    document["mnist_accel"]["contenders"]["jax"]["versions"] = {"jax": "99"}
    new = load_results([write_document(tmp_path / "new.json", document)])
    comparison = compare(load_results([old]), new, np.random.default_rng(0))
    assert {change.baseline for change in comparison.changes} == {None}


def test_result_that_became_wrong_fails(tmp_path, capsys):
    old = SMALL.write(tmp_path / "old.json")
    document = SMALL.document()
    row = dict(zip(("level", "case", "contender"), KEY, strict=True)) | {"reason": "off by 3e-2"}
    document["mnist_accel"]["failed"].append(row)
    new = write_document(tmp_path / "new.json", document)
    assert compare_command(old, new, 0.10) == 1
    assert "off by 3e-2" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["absent", None])
def test_row_of_a_backend_without_a_time_in_the_new_run_fails(tmp_path, capsys, kind):
    old = SMALL.write(tmp_path / "old.json")
    document = SMALL.document()
    row = dict(zip(("level", "case", "contender"), KEY, strict=True))
    for number in range(SMALL.passes):
        del document["benchmarks"][entry_index(document, number=number)]
    if kind is not None:
        document["mnist_accel"][kind].append(row | {"reason": "cannot be imported"})
    new = write_document(tmp_path / "new.json", document)
    assert compare_command(old, new, 0.10) == 1
    output = capsys.readouterr().out
    why = "absent: cannot be imported" if kind else "not measured"
    assert f"without a time in the new run: 1\n  {', '.join(KEY)}: {why}" in output
    assert "FAILED: 0 by more than 10% (marked !), 1 without a time" in output
    assert compare_command(old, new, None) == 0


def test_rows_that_were_not_chosen_may_be_missing(tmp_path):
    """Missing baselines, contenders and cases that the new run did not choose are no failure."""
    both = GeneratedResults(contenders=("numba", "numpy", "jax"), passes=2, rounds=3)
    old = both.write(tmp_path / "old.json")
    document = replace(both, contenders=("numba",)).document()
    document["benchmarks"] = [
        entry for entry in document["benchmarks"] if entry["extra_info"]["level"] == "training"
    ]
    header = document["mnist_accel"]
    header["absent"] = [row for row in header["absent"] if row["level"] == "training"]
    new = write_document(tmp_path / "new.json", document)
    comparison = compare(load_results([old]), load_results([new]), np.random.default_rng(0))
    assert not comparison.broken
    assert {contender for _, _, contender in comparison.lost} == {"numba", "numpy", "jax"}
    assert compare_command(old, new, 0.5) == 0


def test_comparison_warns_of_another_machine_and_an_incomplete_run(tmp_path, capsys):
    old = SMALL.write(tmp_path / "old.json")
    document = SMALL.document()
    document["mnist_accel"]["host"]["cpu"] = "Other"
    document["mnist_accel"]["complete"] = False
    compare_command(old, write_document(tmp_path / "new.json", document), None)
    warnings = capsys.readouterr().err
    assert "different machines: cpu was Intel" in warnings
    assert "the new run is incomplete" in warnings


def test_error_names_the_file_that_cannot_be_read(tmp_path):
    old = SMALL.write(tmp_path / "old.json")
    with pytest.raises(UsageError, match=r"none\.json"):
        compare_command(old, Path(tmp_path / "none.json"), None)
