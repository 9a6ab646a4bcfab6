"""Runs write a journal, from which they are continued."""

import fcntl
import json
import signal

import pytest

from benchmarks.__main__ import main
from benchmarks.session import runner
from benchmarks.session.settings import RunRequest, open_journal
from benchmarks.suite.cases import (
    TrainingCase,
)
from mnist_accel.errors import UsageError
from tests.support.benchmark_runs import QUICK

SMALL = TrainingCase("two-layer", 10)


REQUEST = RunRequest(levels="operations", contenders="numpy", passes=1)


def test_journal_is_read_without_its_incomplete_last_line(tmp_path):
    journal = tmp_path / "journal"
    record = open_journal(REQUEST, journal)
    facts = {"level": "training", "case": SMALL.name, "contender": "numpy", "steps": 7}
    record.add("one", {"params": {"case": SMALL}, "extra_info": facts})
    record.absent("training", "case", "cupy", "no GPU")
    record.absent("training", "case", "cupy", "no GPU")
    with journal.open("a") as file:
        file.write('{"kind": "meas')
    open_journal(RunRequest(), journal).failed("training", "other case", "numpy", "wrong")
    again = open_journal(RunRequest(), journal)
    assert again.settings == record.settings
    assert again.done == {"one"}
    assert again.steps == {(SMALL.name, "numpy"): 7}
    assert again.missing("training", "case", "cupy") == ("absent", "no GPU")
    assert again.missing("training", "case", "numpy") is None
    document = {}
    again.complete(document)
    assert not document["mnist_accel"]["complete"]
    again.end()
    again.complete(document)
    assert document["mnist_accel"]["complete"]
    assert document["benchmarks"] == [{"params": {"case": SMALL.name}, "extra_info": facts}]
    row = {"level": "training", "case": "case", "contender": "cupy", "reason": "no GPU"}
    assert document["mnist_accel"]["absent"] == [row]
    (failed,) = document["mnist_accel"]["failed"]
    assert (failed["case"], failed["reason"]) == ("other case", "wrong")


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (RunRequest(profile="full"), "with profile quick, not full"),
        (
            RunRequest(levels="operations,training"),
            "with levels operations, not training,operations",
        ),
        (RunRequest(contenders="numba"), "with contenders numpy, not numba"),
        (RunRequest(passes=2), "with passes 1, not 2"),
        (RunRequest(seed=7), "with seed 0, not 7"),
        (RunRequest(threads=999), "not 999"),
    ],
)
def test_continued_run_refuses_other_settings(tmp_path, wishes, message):
    journal = tmp_path / "journal"
    begun = open_journal(REQUEST, journal).settings
    assert open_journal(REQUEST, journal).settings == begun
    with pytest.raises(UsageError, match=message):
        open_journal(wishes, journal)


@pytest.mark.parametrize(
    ("fact", "value"), [("commit", "abc"), ("dirty", "perhaps"), ("threads", 999)]
)
def test_continued_run_refuses_other_code_or_cores(tmp_path, fact, value):
    journal = tmp_path / "journal"
    begun = open_journal(REQUEST, journal).settings
    line = json.loads(journal.read_text())
    line["settings"][fact] = value
    journal.write_text(json.dumps(line) + "\n")
    here = getattr(begun, fact)
    with pytest.raises(UsageError, match=f"with {fact} {value}, but here it is {here}"):
        open_journal(RunRequest(), journal)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds nothing to go on with"),
        ('{"kind": "run", "settings": {"profile": "quick"}}\n', "not a journal of this version"),
        ("[]\n", "not a journal of this version"),
        ("measured\n", "is not the journal of a benchmark run"),
    ],
)
def test_invalid_journals_are_refused(tmp_path, capsys, content, message):
    (tmp_path / "out.json.journal").write_text(content)
    assert main(["run", "--continue", "--out", str(tmp_path / "out.json")]) == 2
    assert message in capsys.readouterr().err


def test_journal_of_a_running_process_is_refused(tmp_path, capsys):
    out, journal = tmp_path / "a.json", tmp_path / "a.json.journal"
    open_journal(REQUEST, journal)
    with journal.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert main(["run", "--continue", "--out", str(out)]) == 2
    assert "still goes on; wait for it" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [journal]


@pytest.mark.parametrize("content", [None, "", '{"benchmarks": []}'])
@pytest.mark.parametrize("code", [0, 1, 3])
def test_journal_is_kept_until_the_result_file_can_be_read(tmp_path, capsys, content, code):
    """Python ends with 1 when it breaks down, as pytest does when a test has failed."""
    out, journal = tmp_path / "out.json", tmp_path / "out.json.journal"
    journal.write_text("measured")
    if content is not None:
        out.write_text(content)
    assert runner.finish_run(out, journal, code) == 4
    printed, err = capsys.readouterr()
    assert "results are in" not in printed
    assert f"go on with: python -m benchmarks run --continue --out {out}" in err
    assert journal.read_text() == "measured"


def test_only_the_row_that_crashed_the_process_is_marked(tmp_path):
    out, journal = tmp_path / "out.json", tmp_path / "out.json.journal"
    record = open_journal(REQUEST, journal)
    record.begin("training", "case", "numpy")
    record.failed("training", "case", "numpy", "wrong")
    assert runner.finish_run(out, journal, -signal.SIGKILL) == 4  # between two measurements
    record.begin("training", "other case", "numpy")
    for code in (1, 130):  # no signal, or a key
        runner.finish_run(out, journal, code)
    assert "ended the process" not in journal.read_text()


def test_existing_results_are_not_overwritten(tmp_path, capsys):
    out = tmp_path / "results.json"
    out.write_text("{}")
    assert main([*QUICK, "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == "{}"
