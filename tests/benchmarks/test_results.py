"""Result files are read precisely, merged where they belong together, and compared."""

import gzip
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.comparison import compare, compare_command
from benchmarks.result_files import load_results
from mnist_accel.errors import UsageError
from tests.support.benchmark_files import Laboratory

KEY = ("training", "two-layer, batch 64", "numba")
SMALL = Laboratory(contenders=("numba", "jax"), passes=2, rounds=3)


def _write(path, document):
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def _index(document, key=KEY, number=0):
    """Where the entry of a row and pass stands."""
    for index, entry in enumerate(document["benchmarks"]):
        info = entry["extra_info"]
        if (info["level"], info["case"], info["contender"], info["pass"]) == (*key, number):
            return index
    raise LookupError(key)


def _refused(path):
    with pytest.raises(UsageError) as caught:
        load_results([path])
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_file_is_read_whole(tmp_path):
    results = load_results([Laboratory().write(tmp_path / "a.json")])
    row = results.measurements[KEY]
    assert (row.case.network, row.case.batch, row.case.width) == ("two-layer", 64, 50)
    assert row.call_seconds.n == 4 * 8
    assert row.call_seconds.median == pytest.approx(1e-6 * (40 + 1.1 * 64), rel=0.1)
    assert row.round_seconds.median == pytest.approx(row.call_seconds.median * row.steps)
    assert row.phases_s["compile"] == pytest.approx(0.84)
    assert results.contenders["jax"].is_peer
    assert results.host.cores == 2
    assert {row.contender for row in results.absent} == {"cupy", "torch-compile"}
    # A row whose check failed has its reason, and no time.
    (failed,) = results.failed
    assert failed.key == ("training", "lenet, batch 4096", "numpy")
    assert failed.key not in results.measurements


def test_a_failed_pass_takes_the_time_of_the_others(tmp_path):
    document = SMALL.document()
    row = dict(zip(("level", "case", "contender"), KEY, strict=True)) | {"reason": "wrong"}
    document["mnist_accel"]["failed"].append(row)
    results = load_results([_write(tmp_path / "a.json", document)])
    assert KEY not in results.measurements
    assert results.failed[0].reason == "wrong"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("benchmarks",), {}, "benchmarks is {}; expected a list"),
        (("mnist_accel", "format"), 1, "has format 1; this version reads format 2"),
        (("mnist_accel", "host", "cores"), "2", 'host.cores is "2"; expected an integer'),
        (("mnist_accel", "complete"), 1, "complete is 1; expected true or false"),
        (("mnist_accel", "ceilings"), {}, "expected the ceilings of cpu"),
        (("mnist_accel", "ceilings", "cpu", "flops_per_s"), 0, "expected a number above 0"),
        (("mnist_accel", "contenders", "jax"), None, "contenders.jax is null; expected an object"),
        (("entry", "stats", "data"), [], "expected the seconds of at least one round"),
        (("entry", "stats", "data"), [0.1, float("nan")], "data[1] is NaN; expected a number"),
        (("entry", "stats", "data"), [10**400], "expected a number above 0"),
        (("entry", "extra_info", "batch"), True, "extra_info.batch is true; expected an integer"),
        (("entry", "extra_info", "batch"), 65, "expected 64, as in the earlier entries"),
        (("entry", "extra_info", "level"), "unit", "one of training, inference, operations"),
        (("entry", "extra_info", "level"), ["x"], "one of training, inference, operations"),
        (("entry", "extra_info", "contender"), "mxnet", "expected one of mnist_accel.contenders"),
        (("entry", "extra_info", "is_peer"), True, "what mnist_accel.contenders says of numba"),
        (("entry", "extra_info", "pass"), 0, "a pass that numba has not had in this case"),
        (("entry", "extra_info", "flops"), 1.0, "as in the earlier entries"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_field(tmp_path, path, value, expected):
    document = SMALL.document()
    entry = document["benchmarks"][_index(document, number=1)]
    # The last entry, so that it is the one that contradicts the others.
    document["benchmarks"].remove(entry)
    document["benchmarks"].append(entry)
    first, *rest, last = path if len(path) > 1 else ("document", *path)
    where = {"entry": entry, "document": document}.get(first, document.get(first))
    for name in rest:
        where = where[name]
    where[last] = value
    assert expected in _refused(_write(tmp_path / "a.json", document))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "it ends before anything was measured"),
        ('{"kind": "run", "at": "now"}\n', "it ends before anything was measured"),
        ('{"kind": "run"}\n{"kind": "machine"}\n', "has nothing to report"),
        ("[1]\n[2]\n", "has nothing to report"),
        ("report\n", "is not the journal of a benchmark run"),
    ],
)
def test_a_journal_that_has_nothing_to_report_is_refused(tmp_path, content, expected):
    journal = tmp_path / "a.json.journal"
    journal.write_text(content)
    assert expected in _refused(journal)


def test_every_required_field_is_missed_by_name(tmp_path):
    for part in ("host", "ceilings", "contenders", "absent", "failed", "accuracy", "passes"):
        document = SMALL.document()
        del document["mnist_accel"][part]
        assert f"mnist_accel.{part} is missing" in _refused(_write(tmp_path / "a.json", document))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not a JSON file"),
        (b"\xff\xfe\x00", "is not a JSON file"),
        (b"[1, 2]", "the file is [1, 2]; expected an object"),
        (b'{"a": 1}', "is not a result file"),
        (b'{"benchmarks": [], "machine_info": {}}', "but not of this suite"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_foreign_files_are_refused(tmp_path, content, expected):
    path = tmp_path / "foreign.json"
    path.write_bytes(content)
    assert expected in _refused(path)


def test_compressed_files_are_read(tmp_path):
    plain = SMALL.write(tmp_path / "a.json")
    packed = tmp_path / "a.json.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert load_results([packed]).measurements.keys() == load_results([plain]).measurements.keys()
    packed.write_bytes(packed.read_bytes()[:-20])
    assert "cut short" in _refused(packed)
    packed.write_bytes(plain.read_bytes())
    assert "is not compressed by gzip" in _refused(packed)


def test_unreadable_paths_are_refused(tmp_path):
    assert "No such file" in _refused(tmp_path / "none.json")
    assert "Is a directory" in _refused(tmp_path)
    with pytest.raises(UsageError, match="no result file"):
        load_results([])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_refused_or_harmless(tmp_path, data):
    """Whatever stands in the place of whatever field: the report is made, or one line is said."""
    document = Laboratory(contenders=("numba",), passes=1, rounds=1).document()
    document["benchmarks"] = document["benchmarks"][:2]
    where = document
    while True:
        keys = range(len(where)) if isinstance(where, list) else sorted(where)
        key = data.draw(st.sampled_from(keys))
        inner = where[key]
        if not (isinstance(inner, dict | list) and inner) or data.draw(st.booleans()):
            break
        where = inner
    values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
    where[key] = data.draw(values | st.lists(values, max_size=2))
    path = _write(tmp_path / "damaged.json", document)
    with suppress(UsageError):
        load_results([path])


def test_files_of_one_host_are_merged_as_further_passes(tmp_path):
    paths = [replace(SMALL, seed=seed).write(tmp_path / f"{seed}.json") for seed in range(3)]
    merged = load_results(paths)
    singles = [load_results([path]) for path in paths]
    assert merged.measurements[KEY].call_seconds.n == sum(
        single.measurements[KEY].call_seconds.n for single in singles
    )
    assert len(merged.measurements[KEY].rounds) == 3 * 2
    assert len(merged.runs) == 3
    assert merged.accuracy == singles[0].accuracy  # the same seeds are no further seeds


def test_runs_that_cut_epochs_to_other_lengths_are_merged(tmp_path):
    first = SMALL.write(tmp_path / "a.json")
    document = replace(SMALL, seed=1).document()
    as_it_was = load_results([first, _write(tmp_path / "b.json", document)])
    for entry in document["benchmarks"]:
        info = entry["extra_info"]
        if info["level"] == "training":
            entry["stats"]["data"] = [3 * second for second in entry["stats"]["data"]]
            for name in ("images", "steps", "flops", "bytes"):
                info[name] *= 3
    longer = load_results([first, _write(tmp_path / "c.json", document)])
    for key, measurement in as_it_was.measurements.items():
        merged = longer.measurements[key]
        assert (merged.images, merged.steps) == (measurement.images, measurement.steps)
        assert merged.call_seconds.median == pytest.approx(measurement.call_seconds.median)


def test_a_contender_measured_in_one_file_is_not_absent(tmp_path):
    first = SMALL.write(tmp_path / "a.json")
    second = replace(SMALL, contenders=("numba", "cupy")).document()
    second["mnist_accel"]["host"] |= {"gpu": None, "gpu_driver": None}
    merged = load_results([first, _write(tmp_path / "b.json", second)])
    assert {row.contender for row in merged.absent} == {"torch-compile"}
    assert merged.on_gpu == {"cupy"}


@pytest.mark.parametrize(
    ("name", "value"), [("cpu", "Other"), ("commit", "abc"), ("dirty", True), ("gpu", "H100")]
)
def test_files_that_do_not_belong_together_are_not_merged(tmp_path, name, value):
    first = SMALL.write(tmp_path / "a.json")
    document = SMALL.document()
    document["mnist_accel"]["host"][name] = value
    second = _write(tmp_path / "b.json", document)
    with pytest.raises(UsageError, match=f"cannot be merged: {name} is .* {value} in the other"):
        load_results([first, second])
    with pytest.raises(UsageError, match="given twice"):
        load_results([first, first])


def test_compare_names_a_planted_regression_and_nothing_else(tmp_path, capsys):
    two = Laboratory(contenders=("numba", "torch-eager"))
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
    assert "time over that of torch-eager" in line
    assert "FAILED: 1 by more than 10%" in output
    # It is named, but nothing was asked for; nor does it exceed a wider bound.
    assert compare_command(old, new, None) == 0
    assert compare_command(old, new, 0.5) == 0


def test_a_slower_day_is_no_regression(tmp_path):
    two = Laboratory(contenders=("numba", "jax"))
    old = two.write(tmp_path / "old.json")
    day = dict.fromkeys(two.contenders, 1.3)
    new = replace(two, seed=1, slower=day).write(tmp_path / "new.json")
    assert compare_command(old, new, 0.10) == 0


def test_without_a_peer_plain_times_are_compared(tmp_path, capsys):
    alone = Laboratory(contenders=("numba",))
    old = alone.write(tmp_path / "old.json")
    new = replace(alone, seed=1, slower={"numba": 1.3}).write(tmp_path / "new.json")
    assert compare_command(old, new, 0.10) == 1
    assert "time over that of" not in capsys.readouterr().out


def test_a_peer_of_another_version_is_no_measure(tmp_path):
    old = SMALL.write(tmp_path / "old.json")
    document = SMALL.document()
    document["mnist_accel"]["contenders"]["jax"]["versions"] = {"jax": "99"}
    new = load_results([_write(tmp_path / "new.json", document)])
    comparison = compare(load_results([old]), new, np.random.default_rng(0))
    assert {change.peer for change in comparison.changes} == {None}


def test_a_result_that_has_become_wrong_fails(tmp_path, capsys):
    old = SMALL.write(tmp_path / "old.json")
    document = SMALL.document()
    row = dict(zip(("level", "case", "contender"), KEY, strict=True)) | {"reason": "off by 3e-2"}
    document["mnist_accel"]["failed"].append(row)
    new = _write(tmp_path / "new.json", document)
    assert compare_command(old, new, 0.10) == 1
    assert "off by 3e-2" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["absent", None])
def test_a_time_of_ours_that_is_gone_fails(tmp_path, capsys, kind):
    old = SMALL.write(tmp_path / "old.json")
    document = SMALL.document()
    row = dict(zip(("level", "case", "contender"), KEY, strict=True))
    for number in range(SMALL.passes):
        del document["benchmarks"][_index(document, number=number)]
    if kind is not None:
        document["mnist_accel"][kind].append(row | {"reason": "cannot be imported"})
    new = _write(tmp_path / "new.json", document)
    assert compare_command(old, new, 0.10) == 1
    output = capsys.readouterr().out
    why = "absent: cannot be imported" if kind else "not measured"
    assert f"without a time now: 1\n  {', '.join(KEY)}: {why}" in output
    assert "FAILED: 0 by more than 10% (marked !), 1 without a time" in output
    assert compare_command(old, new, None) == 0


def test_what_was_not_chosen_may_be_gone(tmp_path):
    """Others' rows, another choice of contenders, and other cases are no regressions."""
    both = Laboratory(contenders=("numba", "numpy", "jax"), passes=2, rounds=3)
    old = both.write(tmp_path / "old.json")
    document = replace(both, contenders=("numba",)).document()
    document["benchmarks"] = [
        entry for entry in document["benchmarks"] if entry["extra_info"]["level"] == "training"
    ]
    header = document["mnist_accel"]
    header["absent"] = [row for row in header["absent"] if row["level"] == "training"]
    new = _write(tmp_path / "new.json", document)
    comparison = compare(load_results([old]), load_results([new]), np.random.default_rng(0))
    assert not comparison.broken
    assert {contender for _, _, contender in comparison.lost} == {"numba", "numpy", "jax"}
    assert compare_command(old, new, 0.5) == 0


def test_another_machine_and_an_unfinished_run_are_warned_of(tmp_path, capsys):
    old = SMALL.write(tmp_path / "old.json")
    document = SMALL.document()
    document["mnist_accel"]["host"]["cpu"] = "Other"
    document["mnist_accel"]["complete"] = False
    compare_command(old, _write(tmp_path / "new.json", document), None)
    warnings = capsys.readouterr().err
    assert "different machines: cpu was Intel" in warnings
    assert "the new run did not come to its end" in warnings


def test_the_file_that_cannot_be_compared_is_named(tmp_path):
    old = SMALL.write(tmp_path / "old.json")
    with pytest.raises(UsageError, match=r"none\.json"):
        compare_command(old, Path(tmp_path / "none.json"), None)
