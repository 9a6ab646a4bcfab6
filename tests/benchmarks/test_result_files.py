"""Result files are checked, read and merged."""

import gzip
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.report.machine_tables import host_table
from benchmarks.storage.results import load_results
from mnist_accel.errors import UsageError
from tests.support.benchmark_files import KEY, SMALL, GeneratedResults, entry_index, write_document

STARTED = (
    '{"kind": "run", "at": "now", "settings": {"profile": "quick", "levels": [], "contenders": [], '
    '"left_out": [], "passes": 1, "seed": 0, "threads": 1, "commit": null, "dirty": null}}\n'
)


def _refused(path):
    with pytest.raises(UsageError) as caught:
        load_results([path])
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_result_file_is_read(tmp_path):
    results = load_results([GeneratedResults().write(tmp_path / "a.json")])
    row = results.measurements[KEY]
    assert (row.case.network, row.case.batch, row.case.width) == ("two-layer", 64, 50)
    assert row.call_seconds.n == 4 * 8
    assert row.call_seconds.median == pytest.approx(1e-6 * (40 + 1.1 * 64), rel=0.1)
    assert row.round_seconds.median == pytest.approx(row.call_seconds.median * row.info.steps)
    assert row.phases_s["compile"] == pytest.approx(0.84)
    assert results.contenders["jax"].is_baseline
    assert results.host.cores == 2
    assert {row.contender for row in results.absent} == {"cupy", "torch-compile"}
    # A row whose check failed has a reason and no time.
    (failed,) = results.failed
    assert failed.key == ("training", "lenet, batch 4096", "numpy")
    assert failed.key not in results.measurements


def test_row_that_failed_in_one_pass_has_no_time(tmp_path):
    document = SMALL.document()
    row = dict(zip(("level", "case", "contender"), KEY, strict=True)) | {"reason": "wrong"}
    document["mnist_accel"]["failed"].append(row)
    results = load_results([write_document(tmp_path / "a.json", document)])
    assert KEY not in results.measurements
    assert results.failed[0].reason == "wrong"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("benchmarks",), {}, "benchmarks: expected `array`, got `object`"),
        (("mnist_accel", "format"), 1, "has format 1; this version reads formats 2 and 3"),
        (
            ("mnist_accel", "host", "cores"),
            "2",
            "mnist_accel.host.cores: expected `int`, got `str`",
        ),
        (("mnist_accel", "complete"), 1, "mnist_accel.complete: expected `bool`, got `int`"),
        (("mnist_accel", "ceilings"), {}, "`ceilings` must contain those of the cpu"),
        (
            ("mnist_accel", "ceilings", "cpu", "flops_per_s"),
            0,
            "flops_per_s: expected `float` >= 1.0",
        ),
        (("mnist_accel", "contenders", "jax"), None, "expected `object`, got `null`"),
        (("entry", "stats", "data"), [], "stats.data: expected `array` of length >= 1"),
        (("entry", "stats", "data"), [0.1, float("nan")], "is not valid JSON"),
        (("entry", "stats", "data"), [10**400], "stats.data[0]: number out of range"),
        (("entry", "extra_info", "batch"), True, "extra_info.batch: expected `int`, got `bool`"),
        (("entry", "extra_info", "batch"), 65, "batch is 65; earlier entries of this case have 64"),
        (("entry", "extra_info", "level"), "unit", "extra_info.level: invalid enum value 'unit'"),
        (("entry", "extra_info", "level"), ["x"], "extra_info.level: expected `str`, got `array`"),
        (("entry", "extra_info", "contender"), "mxnet", "but mnist_accel.contenders contains only"),
        (
            ("entry", "extra_info", "is_peer"),
            True,
            "is_peer is True, but that of mnist_accel.contenders.numba is False",
        ),
        (("entry", "extra_info", "pass"), 0, "pass 0 occurs twice for numba"),
        (("entry", "stats", "data"), [1e-320], "stats.data[0]: expected `float` >= 1e-12"),
        (("entry", "stats", "data"), [1e300], "stats.data[0]: expected `float` <= 1000000000"),
        (("entry", "extra_info", "images"), 0, "`images` must be at least 1"),
        (("entry", "extra_info", "batch"), 10**30, "batch: expected `int` <= 9223"),
        (
            ("entry", "extra_info", "contender"),
            "\ud800",
            "but mnist_accel.contenders contains only",
        ),
        (("entry", "extra_info", "flops"), 1.0, "flops is 1.0; earlier entries of this case have"),
    ],
)
def test_error_names_file_and_field(tmp_path, path, value, expected):
    document = SMALL.document()
    entry = document["benchmarks"][entry_index(document, number=1)]
    # As the last entry, it is the one that contradicts the earlier ones.
    document["benchmarks"].remove(entry)
    document["benchmarks"].append(entry)
    first, *rest, last = path if len(path) > 1 else ("document", *path)
    where = {"entry": entry, "document": document}.get(first, document.get(first))
    for name in rest:
        where = where[name]
    where[last] = value
    assert expected in _refused(write_document(tmp_path / "a.json", document))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "contains no run"),
        (STARTED, "ends before the first measurement"),
        ('{"kind": "run"}\n{"kind": "machine"}\n', "journal, line 1, is not "),
        ("[1]\n[2]\n", "journal, line 1, is not "),
        ("report\n", "journal, line 1, is not "),
        (STARTED + '{"kind": "machine"}\n', "missing required field `host`"),
    ],
)
def test_journal_without_measurements_cannot_be_reported(tmp_path, content, expected):
    journal = tmp_path / "a.json.journal"
    journal.write_text(content)
    assert expected in _refused(journal)


def test_missing_field_is_named(tmp_path):
    for part in ("host", "ceilings", "contenders", "absent", "failed", "accuracy", "passes"):
        document = SMALL.document()
        del document["mnist_accel"][part]
        assert f"mnist_accel: object missing required field `{part}`" in _refused(
            write_document(tmp_path / "a.json", document)
        )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not valid JSON"),
        (b"\xff\xfe\x00", "is not valid JSON"),
        (b"[1, 2]", "expected `object`, got `array`"),
        (b'{"a": 1}', "object missing required field `benchmarks`"),
        (b'{"benchmarks": [], "machine_info": {}}', "object missing required field `mnist_accel`"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_other_files_are_refused(tmp_path, content, expected):
    path = tmp_path / "foreign.json"
    path.write_bytes(content)
    assert expected in _refused(path)


def test_compressed_file_is_read(tmp_path):
    plain = SMALL.write(tmp_path / "a.json")
    packed = tmp_path / "a.json.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert load_results([packed]).measurements.keys() == load_results([plain]).measurements.keys()
    packed.write_bytes(packed.read_bytes()[:-20])
    assert "is a corrupt gzip file (it ends too early)" in _refused(packed)
    packed.write_bytes(plain.read_bytes())
    assert "is a corrupt gzip file" in _refused(packed)


def test_accuracy_after_no_time_is_refused(tmp_path):
    document = SMALL.document()
    document["mnist_accel"]["accuracy"][0]["seconds"][0] = 0
    path = write_document(tmp_path / "a.json", document)
    assert "accuracy[0].seconds[0]: expected `float` >= 1e-12" in _refused(path)


def test_unreadable_path_is_refused(tmp_path):
    assert "No such file" in _refused(tmp_path / "none.json")
    assert "Is a directory" in _refused(tmp_path)
    with pytest.raises(UsageError, match="no result file"):
        load_results([])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_file_is_read_or_refused(tmp_path, data):
    """With any value in any field, the file is loaded or refused with one line."""
    document = GeneratedResults(contenders=("numba",), passes=1, rounds=1).document()
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
    path = write_document(tmp_path / "damaged.json", document)
    with suppress(UsageError):
        load_results([path])


def test_merged_files_count_as_further_passes(tmp_path):
    paths = [replace(SMALL, seed=seed).write(tmp_path / f"{seed}.json") for seed in range(3)]
    merged = load_results(paths)
    singles = [load_results([path]) for path in paths]
    assert merged.measurements[KEY].call_seconds.n == sum(
        single.measurements[KEY].call_seconds.n for single in singles
    )
    assert len(merged.measurements[KEY].rounds) == 3 * 2
    assert len(merged.runs) == 3
    assert merged.accuracy == singles[0].accuracy  # the same seeds count once


def test_runs_with_different_epoch_lengths_are_merged(tmp_path):
    first = SMALL.write(tmp_path / "a.json")
    document = replace(SMALL, seed=1).document()
    as_it_was = load_results([first, write_document(tmp_path / "b.json", document)])
    for entry in document["benchmarks"]:
        info = entry["extra_info"]
        if info["level"] == "training":
            entry["stats"]["data"] = [3 * second for second in entry["stats"]["data"]]
            for name in ("images", "steps", "flops", "bytes"):
                info[name] *= 3
    longer = load_results([first, write_document(tmp_path / "c.json", document)])
    for key, measurement in as_it_was.measurements.items():
        merged = longer.measurements[key]
        assert (merged.info.images, merged.info.steps) == (
            measurement.info.images,
            measurement.info.steps,
        )
        assert merged.call_seconds.median == pytest.approx(measurement.call_seconds.median)


def test_contender_measured_in_one_file_is_not_absent(tmp_path):
    first = SMALL.write(tmp_path / "a.json")
    second = replace(SMALL, contenders=("numba", "cupy")).document()
    second["mnist_accel"]["host"] |= {"gpu": None, "gpu_driver": None}
    merged = load_results([first, write_document(tmp_path / "b.json", second)])
    assert {row.contender for row in merged.absent} == {"torch-compile"}
    assert merged.on_gpu == {"cupy"}


def test_levels_may_be_measured_with_different_code(tmp_path):
    first, second = SMALL.document(), SMALL.document()
    first["mnist_accel"]["levels"], first["benchmarks"] = ["population"], []
    first["mnist_accel"]["host"]["commit"] = "abc"
    paths = [write_document(tmp_path / f"{n}.json", d) for n, d in enumerate((first, second))]
    facts = dict(host_table(load_results(paths)).groups[0].rows)
    commit = next(value.text for name, value in facts.items() if name.text == "commit")
    assert commit.startswith("abc (population), ")


@pytest.mark.parametrize(
    ("name", "value"), [("cpu", "Other"), ("commit", "abc"), ("dirty", True), ("gpu", "H100")]
)
def test_files_of_different_machines_or_code_are_not_merged(tmp_path, name, value):
    first = SMALL.write(tmp_path / "a.json")
    document = SMALL.document()
    document["mnist_accel"]["host"][name] = value
    second = write_document(tmp_path / "b.json", document)
    with pytest.raises(UsageError, match=rf"cannot be merged: {name} differs \(.* and {value}\)"):
        load_results([first, second])
    with pytest.raises(UsageError, match="given twice"):
        load_results([first, first])
