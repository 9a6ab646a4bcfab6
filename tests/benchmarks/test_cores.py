"""A run waits until its two cores exchange data quickly."""

import os
from types import SimpleNamespace

import pytest

from backends import backend_availability
from benchmarks import cores
from benchmarks.cores import Cores, barrier_ns
from benchmarks.report.machine_tables import host_table
from benchmarks.session import plugin
from benchmarks.session.progress import ANNOUNCE
from benchmarks.session.settings import RunRequest, open_journal
from benchmarks.storage.journal import Journal
from benchmarks.storage.results import load_results
from benchmarks.suite.cases import OperationCase
from benchmarks.workers.team import Team
from tests.support.benchmark_files import SMALL, write_document


@pytest.fixture
def wait(monkeypatch):
    """Return a function that waits for cores with the given barriers; time passes in sleeps."""
    clock = SimpleNamespace(now=0.0)

    def sleep(seconds):
        clock.now += seconds

    def wait(barriers, *, before=(50.0,) * 20, wait_s=60.0):
        remaining, printed = iter(barriers), []
        clock.now = 0.0
        monkeypatch.setattr(cores, "barrier_ns", lambda: next(remaining))
        monkeypatch.setattr(
            cores, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep)
        )
        watched = Cores(barriers_ns=before, wait_s=wait_s, announce=printed.append)
        return watched, clock, printed

    return wait


def test_a_turn_begins_at_once_if_barriers_are_fast(wait):
    watched, clock, printed = wait([60.0])
    assert (watched.wait(), clock.now, printed) == (60.0, 0.0, [])


def test_a_turn_waits_until_barriers_are_fast(wait):
    watched, clock, _ = wait([220.0, 210.0, 55.0])
    assert (watched.wait(), clock.now) == (55.0, 2.0)


def test_all_turns_together_wait_as_long_as_the_run_allows(wait):
    watched, clock, _ = wait([220.0] * 20, wait_s=5.0)
    assert watched.wait() == 220.0
    assert clock.now == 5.0
    assert (watched.wait(), clock.now) == (220.0, 5.0)


def test_a_long_wait_is_announced_once(wait):
    watched, _, printed = wait([220.0] * 30 + [50.0], wait_s=600.0)
    watched.wait()
    assert printed == [
        "The cores exchange data 4.4 times as slowly as before; waiting up to 10 min for faster "
        "ones"
    ]


def test_cores_of_constant_distance_never_wait(wait):
    watched, clock, _ = wait([220.0, 230.0], before=())
    assert (watched.wait(), watched.wait(), clock.now) == (220.0, 230.0, 0.0)


def test_a_few_turns_on_hardware_threads_of_one_core_change_nothing(wait):
    watched, clock, _ = wait([29.0, 33.0, 85.0], before=[85.0, 90.0] * 20)
    assert [watched.wait() for _ in range(3)] == [29.0, 33.0, 85.0]
    assert clock.now == 0.0


def test_a_long_wait_does_not_change_which_cores_are_near(wait):
    watched, clock, _ = wait([220.0] * 100 + [50.0], before=[50.0] * 3, wait_s=600.0)
    assert (watched.wait(), clock.now) == (50.0, 100.0)


def test_nothing_waits_where_barriers_cannot_be_measured(wait):
    watched, clock, _ = wait([None])
    assert (watched.wait(), clock.now) == (None, 0.0)


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or not backend_availability("numba").ok,
    reason="no thread can be bound to a core, or Numba cannot run",
)
def test_barrier_of_two_cores_is_measured():
    cores_before = os.sched_getaffinity(0)
    measured = barrier_ns()
    assert (measured is not None) == (len(cores_before) == 2)
    assert measured is None or 1 < measured < 1e7
    assert os.sched_getaffinity(0) == cores_before


def test_cores_that_may_not_be_chosen_are_not_measured(monkeypatch):
    def refuse(thread, cores):
        raise PermissionError("not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    assert barrier_ns() is None


def test_wait_is_announced_by_the_display_of_the_progress(monkeypatch):
    """The plugin of the display is configured after that of the suite."""
    given = {}
    monkeypatch.setattr(
        plugin, "Cores", lambda **options: given.update(options) or SimpleNamespace(wait=None)
    )
    options = {"levels": "operations", "contenders": "numpy", "passes": 1}
    config = SimpleNamespace(
        stash=pytest.Stash(), addinivalue_line=lambda *line: None, getoption=options.get
    )
    plugin.pytest_configure(config)
    printed = []
    config.stash[ANNOUNCE] = printed.append
    given["announce"]("waiting")
    assert printed == ["waiting"]


def test_report_states_how_many_turns_began_with_far_cores(tmp_path):
    document = SMALL.document()
    for number, entry in enumerate(document["benchmarks"]):
        entry["extra_info"]["barrier_ns"] = 200.0 if number == 0 else 50.0
    path = write_document(tmp_path / "a.json", document)
    (facts,) = host_table(load_results([path])).groups
    values = {name.text: value.text for name, value in facts.rows}
    turns = len(document["benchmarks"])
    assert values["barrier of two threads"] == (
        f"50 ns (median); over 2 times that of near cores (50 ns) in 1 of {turns} turns"
    )


def test_run_that_is_continued_knows_its_barriers(tmp_path):
    path = tmp_path / "journal"
    journal = open_journal(RunRequest(levels="operations", contenders="numpy", passes=1), path)
    assert journal.barriers_ns == []
    row = {"level": "operations", "case": "sgd_update", "contender": "numpy"}
    for ns in (60.0, 50.0, None):
        journal.measured("one", {"params": {}, "extra_info": {**row, "barrier_ns": ns}})
    assert Journal.read(path).barriers_ns == [60.0, 50.0]


def test_result_of_a_turn_has_the_barrier_before_it():
    update = OperationCase("sgd_update", "forward", (1000,), 1, (("lr", 1e-3),))
    with Team(before_turn=lambda: 42.0) as team:
        result = team.turn(update, "numpy", ["numpy"], group=0, number=0, seconds=0.01)
    assert result.info.barrier_ns == 42.0
