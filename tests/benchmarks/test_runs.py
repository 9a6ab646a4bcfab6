"""`python -m benchmarks run` can be interrupted and continued, and refuses wrong usage."""

import copy
import gzip
import json
import os
import shlex
import shutil
import signal
import sys
import time
from types import SimpleNamespace
from typing import ClassVar

import pytest

from benchmarks.__main__ import main
from benchmarks.contenders import contenders
from benchmarks.session import progress
from benchmarks.storage.results import load_results
from benchmarks.suite.cases import (
    operation_cases,
)
from tests.support.benchmark_runs import QUICK, run_benchmarks
from tests.support.terminal import Terminal


def interrupted(*arguments, journal, **options):
    """Interrupt a run after two measurements; return the commands to continue and to report it."""
    first = run_benchmarks(*arguments, **options)
    while not (journal.exists() and journal.read_text().count('"measured"') >= 2):
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGINT)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130, err
    return command_after("continue with: ", err), command_after("so far with: ", err)


def command_after(words, err):
    """Return the arguments of the command that follows these words."""
    command = err.partition(f"{words}{sys.executable} -m benchmarks ")[2].partition("\n")[0]
    return shlex.split(command)


def test_interrupted_run_is_reported_and_continued(tmp_path):
    out = tmp_path / "my results.json.gz"
    journal = tmp_path / "my results.json.gz.journal"
    arguments = (*QUICK, "--contenders", "numpy,cupy", "--threads", 1, "--out", out)
    resume, report = interrupted(*arguments, journal=journal)
    measured = journal.read_text().count('"measured"')
    assert list(tmp_path.iterdir()) == [journal]
    assert main([*report, "--out", str(tmp_path / "so far")]) == 0
    so_far = (tmp_path / "so far" / "my results.md").read_text()
    assert "not complete" in so_far
    assert "cupy" in so_far
    shutil.rmtree(tmp_path / "so far")
    second = run_benchmarks(*resume)
    printed, err = second.communicate(timeout=200)
    assert second.returncode == 0, err
    assert str(out) in printed
    assert list(tmp_path.iterdir()) == [out]
    document = json.loads(gzip.decompress(out.read_bytes()))
    assert len(document["benchmarks"]) == len(operation_cases("quick"))
    assert document["mnist_accel"]["complete"]
    assert document["mnist_accel"]["threads"] == 1
    assert document["machine_info"]["python_version"]
    assert measured < len(document["benchmarks"])
    results = load_results([out])
    assert {one.contender for one in results.measurements.values()} == {"numpy"}
    assert {row.contender for row in results.absent} == {"cupy"}


@pytest.mark.slow
def test_newest_run_is_continued_even_if_everything_is_measured(tmp_path):
    """Without --out, `--continue` resumes the newest run."""
    folder = tmp_path / "bench-results"
    folder.mkdir()
    out = folder / "new.json"
    arguments = (*QUICK, "--contenders", "numpy", "--out", out)
    interrupted(*arguments, journal=folder / "new.json.journal", cwd=tmp_path)
    _measure_the_rest(folder / "new.json.journal")
    older = folder / "old.json.journal"
    older.write_text("an older run")
    os.utime(older, (0, 0))
    second = run_benchmarks("run", "--continue", cwd=tmp_path)
    printed, err = second.communicate(timeout=200)
    assert second.returncode == 0, err
    assert "results are in bench-results/new.json" in printed
    assert sorted(folder.iterdir()) == [out, older]
    assert len(load_results([out]).measurements) == len(operation_cases("quick"))


def _measure_the_rest(journal):
    """Add times for all rows to a journal, as if the run was interrupted just before its end."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    measured = next(line for line in lines if line["kind"] == "measured")
    lines = [line for line in lines if line["kind"] != "measured"]
    for case in operation_cases("quick"):
        for number in range(3):
            line = copy.deepcopy(measured)
            name = f"{case.name}-numpy-{number}".encode("unicode_escape").decode()
            line["test"] = f"benchmarks/test_suite.py::test_operations[{name}]"
            line["benchmark"]["extra_info"] |= {"case": case.name, "pass": number}
            lines.append(line)
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_run_without_an_available_contender_lists_absent_rows(tmp_path):
    if contenders()["cupy"].availability().ok:
        pytest.skip("this machine has a GPU")
    out = tmp_path / "out.json"
    process = run_benchmarks(*QUICK, "--contenders", "cupy", "--out", out)
    printed, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert f"results are in {out}" in printed
    results = load_results([out])
    assert not results.measurements
    assert {row.case for row in results.absent} == {case.name for case in operation_cases("quick")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*QUICK, "--contenders", "tpu"], "unknown contender 'tpu'"),
        (["run", "--levels", "speed"], "unknown level 'speed'"),
        (["run", "--levels", "accuracy"], "has no case of the level accuracy"),
        (["run", "--out", "results.txt"], "--out must end in .json or .json.gz, got"),
        ([*QUICK, "--threads", "999"], "--threads is 999; this process may use"),
        ([*QUICK, "--continue"], "no unfinished run"),
        (["run", "--quick", "--full"], "not allowed with argument"),
        (["compare", "a.json"], "NEW"),
        (["agree", "a.json", "b.json"], "a.json"),
        ([*QUICK, "--processes", "2"], "--processes must be 1 to the number of passes, 1; got 2"),
        (["compare", "a.json", "b.json", "--fail-over", "x"], "must be a percentage"),
        (["compare", "a.json", "b.json", "--fail-over", "x%"], "must be a percentage"),
        (["compare", "a.json", "b.json", "--fail-over", "0.1"], "such as 10%, got 0.1"),
        (["compare", "a.json", "b.json"], "a.json"),
        (["report", "a.json"], "a.json"),
        (["bench"], "invalid choice: 'bench'"),
    ],
)
def test_wrong_usage_prints_one_line_and_exits_with_2(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    if arguments[:1] == ["run"] and "--out" not in arguments:
        arguments = [*arguments, "--out", "out.json"]
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    err = capsys.readouterr().err
    assert code == 2, err
    assert message in err
    assert len(err.splitlines()) == 1, err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("step_s", "message"),
    [
        (0.1, "25 of 75 done, about 5 s left"),
        (2.4, "25 of 75 done, about 2 min left"),
        (78, "25 of 75 done, about 1 h 5 min left"),
    ],
)
def test_progress_without_a_terminal_shows_the_time_left(capsys, step_s, message):
    class Session:
        items: ClassVar[list] = [_item("cnn", "numpy", number) for number in range(75)]

    now = 0.0
    plugin = progress.ProgressPlugin(clock=lambda: now)
    now = 1000.0  # the time of collection does not count
    plugin.pytest_collection_finish(Session)
    for _ in range(25):
        now += step_s
        plugin.pytest_runtest_logfinish("test")
    plugin.pytest_sessionfinish()
    assert capsys.readouterr().err.splitlines()[1:] == [message]


def _item(case, contender, number):
    parameters = {"case": SimpleNamespace(name=case), "contender": contender}
    return SimpleNamespace(nodeid=str(number), callspec=SimpleNamespace(params=parameters))


def test_progress_names_case_and_contender_without_escapes():
    """pytest escapes "×" in the names of its tests."""
    terminal = Terminal()
    plugin = progress.ProgressPlugin(terminal)
    plugin.pytest_collection_finish(SimpleNamespace(items=[_item("conv 5×5", "numpy", 7)]))
    plugin.pytest_runtest_logstart("7")
    plugin.pytest_sessionfinish()
    assert "conv 5×5, numpy" in terminal.getvalue()


def test_the_bar_moves_from_the_start():
    terminal = Terminal()
    plugin = progress.ProgressPlugin(terminal)
    shown = len(terminal.getvalue())
    assert "starting" in terminal.getvalue()
    end = time.monotonic() + 30
    while len(terminal.getvalue()) == shown and time.monotonic() < end:
        time.sleep(0.1)
    plugin.pytest_sessionfinish()
    assert len(terminal.getvalue()) > shown


def test_import_error_ends_the_run_with_exit_code_1(capsys):
    report = pytest.CollectReport("test_training.py", "failed", "ImportError: no preparer", [])
    with pytest.raises(pytest.exit.Exception) as ended:
        progress.ProgressPlugin().pytest_collectreport(report)
    assert ended.value.returncode == 1
    assert "ImportError: no preparer" in capsys.readouterr().err


@pytest.mark.slow
def test_undecided_rows_are_measured_longer_while_there_is_time(tmp_path):
    """A single pass decides nothing, so a second group of processes measures the case again."""
    out = tmp_path / "out.json"
    choice = ("--levels", "inference", "--contenders", "numpy,scikit-learn", "--passes", 1)
    process = run_benchmarks("run", *choice, "--minutes", 1, "--out", out)
    _, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    assert "2 cases are undecided; measuring them longer" in err
    rows = load_results([out]).measurements.values()
    assert all(len({turn.process for turn in row.rounds}) >= 2 for row in rows)
