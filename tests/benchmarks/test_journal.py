"""Runs write a journal, from which they are continued."""

import json
import sys

import pytest

from benchmarks.__main__ import main
from benchmarks.host import host_facts
from benchmarks.session import runner
from benchmarks.session.settings import RunRequest, open_journal
from benchmarks.storage.journal import Absent, Extended, Failed, Machine
from benchmarks.storage.results import load_results
from benchmarks.suite.cases import (
    TrainingCase,
)
from benchmarks.suite.ceilings import cpu_ceilings
from mnist_accel.errors import UsageError
from mnist_accel.util.process_lock import process_lock
from tests.support.benchmark_runs import QUICK

SMALL = TrainingCase("two-layer", 10)


MACHINE = Machine(host=host_facts(), ceilings={"cpu": cpu_ceilings()}, contenders={})
REQUEST = RunRequest(levels="operations", contenders="numpy", passes=1)


def test_journal_is_read_without_its_incomplete_last_line(tmp_path):
    journal = tmp_path / "journal"
    record = open_journal(REQUEST, journal)
    record.add(MACHINE)
    facts = {"level": "training", "case": SMALL.name, "contender": "numpy", "steps": 7}
    record.measured("one", {"params": {"case": SMALL}, "extra_info": facts})
    absent = {"level": "training", "case": "case", "contender": "cupy", "reason": "no GPU"}
    for _ in range(2):
        record.add(Absent(**absent))
    with journal.open("a") as file:
        file.write('{"kind": "meas')
    failed = {"level": "training", "case": "other case", "contender": "numpy", "reason": "wrong"}
    open_journal(RunRequest(), journal).add(Failed(**failed))
    again = open_journal(RunRequest(), journal)
    assert again.settings == record.settings
    assert again.measured_tests == {"one"}
    assert again.steps == {(SMALL.name, "numpy"): 7}
    assert isinstance(again.missing(("training", "case", "cupy")), Absent)
    assert again.missing(("training", "case", "numpy")) is None
    assert not again.document()["mnist_accel"]["complete"]
    again.end(host_facts())
    document = again.document()
    assert document["mnist_accel"]["complete"]
    assert document["benchmarks"] == [{"params": {"case": SMALL.name}, "extra_info": facts}]
    assert document["mnist_accel"]["absent"] == [absent]
    assert document["mnist_accel"]["failed"] == [failed]


@pytest.mark.parametrize(
    ("new_request", "message"),
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
def test_continued_run_refuses_other_settings(tmp_path, new_request, message):
    journal = tmp_path / "journal"
    started = open_journal(REQUEST, journal).settings
    assert open_journal(REQUEST, journal).settings == started
    with pytest.raises(UsageError, match=message):
        open_journal(new_request, journal)


@pytest.mark.parametrize(("fact", "value"), [("commit", "abc"), ("dirty", None), ("threads", 999)])
def test_continued_run_refuses_other_code_or_cores(tmp_path, fact, value):
    journal = tmp_path / "journal"
    started = open_journal(REQUEST, journal).settings
    line = json.loads(journal.read_text())
    line["settings"][fact] = value
    journal.write_text(json.dumps(line) + "\n")
    here = getattr(started, fact)
    with pytest.raises(UsageError, match=f"with {fact} {value}, but {fact} is now {here}"):
        open_journal(RunRequest(), journal)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "contains no run"),
        ('{"kind": "run", "settings": {"profile": "quick"}}\n', "journal, line 1, is not "),
        ("[]\n", "journal, line 1, is not "),
        ("measured\n", "journal, line 1, is not "),
    ],
)
def test_invalid_journals_are_refused(tmp_path, capsys, content, message):
    (tmp_path / "out.json.journal").write_text(content)
    assert main(["run", "--continue", "--out", str(tmp_path / "out.json")]) == 2
    assert message in capsys.readouterr().err


def test_journal_of_a_running_process_is_refused(tmp_path, capsys):
    out, journal = tmp_path / "a.json", tmp_path / "a.json.journal"
    open_journal(REQUEST, journal)
    with process_lock(tmp_path / "a.json.journal.lock", "testing"):
        assert main(["run", "--continue", "--out", str(out)]) == 2
    assert f"another process is writing {journal}: process " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [journal]


@pytest.mark.parametrize("content", [None, "", '{"benchmarks": []}'])
@pytest.mark.parametrize("code", [0, 1, 3])
def test_journal_is_kept_until_the_result_file_can_be_read(tmp_path, capsys, content, code):
    """Python exits with 1 after an internal error, as pytest does after a failed test."""
    out, journal = tmp_path / "out.json", tmp_path / "out.json.journal"
    journal.write_text("measured")
    if content is not None:
        out.write_text(content)
    assert runner.finish_run(out, journal, code) == 4
    printed, err = capsys.readouterr()
    assert "results are in" not in printed
    assert f"continue with: {sys.orig_argv[0]} -m benchmarks run --continue --out {out}" in err
    assert journal.read_text() == "measured"


def test_existing_results_are_not_overwritten(tmp_path, capsys):
    out = tmp_path / "results.json"
    out.write_text("{}")
    assert main([*QUICK, "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == "{}"


def test_journal_lists_the_cases_that_are_measured_longer(tmp_path):
    journal = tmp_path / "journal"
    open_journal(REQUEST, journal).add(Extended(cases=(("training", SMALL.name),)))
    assert open_journal(REQUEST, journal).extensions == [(("training", SMALL.name),)]


def test_result_file_is_written_when_the_run_is_complete(tmp_path):
    out, journal = tmp_path / "out.json.gz", tmp_path / "journal"
    record = open_journal(REQUEST, journal)
    record.add(MACHINE)
    with pytest.raises(UsageError, match="the run is incomplete"):
        runner.write_results(out, journal)
    record.end(host_facts())
    runner.write_results(out, journal)
    assert load_results([out]).runs[0].complete
    with pytest.raises(UsageError, match=r"cannot write .*: "):
        runner.write_results(tmp_path / "journal" / "out.json", journal)
