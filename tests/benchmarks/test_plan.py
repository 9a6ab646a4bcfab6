"""The order of a run: groups of new processes, and turns in random order within each pass."""

from itertools import groupby

import pytest

from benchmarks.session.plan import Plan
from benchmarks.session.settings import RunRequest, resolve
from benchmarks.storage.journal import RunSettings
from benchmarks.suite.cases import LEVELS

NAMES = ("numpy", "numba", "jax", "torch-compile")


def _settings(**changes):
    defaults = {
        "profile": "full", "levels": LEVELS, "contenders": NAMES, "left_out": (), "passes": 10,
        "processes": 5, "seed": 0, "threads": 2, "commit": None, "dirty": None,
    }  # fmt: skip
    return RunSettings(**defaults | changes)


def test_contenders_alternate_within_each_pass_of_a_case():
    plan = Plan(_settings(levels=("inference",)))
    orders = set()
    for (case, number), turns in groupby(plan.turns, key=lambda one: (one.case, one.number)):
        names = [turn.contender for turn in turns]
        assert sorted(names) == sorted(plan.contenders_of(case))
        assert 0 <= number < 10
        orders.add(tuple(names))
    assert len(orders) > 10


def test_each_group_measures_each_case_once_in_another_order():
    plan = Plan(_settings(levels=("operations",)))
    groups = {}
    for turn in plan.turns:
        groups.setdefault(plan.group_of(turn.number), []).append(turn.case.name)
    assert list(groups) == [0, 1, 2, 3, 4]
    orders = [[name for name, _ in groupby(names)] for names in groups.values()]
    assert all(sorted(order) == sorted(one.name for one in plan.cases) for order in orders)
    assert len(set(map(tuple, orders))) == 5


def test_each_start_is_measured_once_in_three_groups_and_each_accuracy_with_three_seeds():
    plan = Plan(_settings(levels=("start", "accuracy")))
    numbers = {}
    for turn in plan.turns:
        numbers.setdefault((turn.case.level, turn.case.name, turn.contender), []).append(
            turn.number
        )
    starts = {key: found for key, found in numbers.items() if key[0] == "start"}
    assert all(found == [0, 2, 4] for found in starts.values())
    assert ("start", "lenet, cold start", "torch-compile") in starts
    assert all(numbers[key] == [0, 1, 2] for key in numbers if key[0] == "accuracy")


def test_starts_do_not_interrupt_other_cases():
    """A start ends all workers, which would lose what they have imported."""
    levels = [turn.case.level for turn in Plan(_settings(levels=("inference", "start"))).turns]
    runs = [level for level, _ in groupby(levels)]
    assert runs == ["start", "inference"] * 3


def test_undecided_cases_get_another_group_of_processes():
    settings = _settings(levels=("inference",))
    chosen = ("inference", "two-layer, batch 1")
    plan = Plan(settings, ((chosen,), (chosen,)))
    more = plan.turns[len(Plan(settings).turns) :]
    assert {(turn.case.level, turn.case.name) for turn in more} == {chosen}
    assert sorted({turn.number for turn in more}) == [10, 11, 12, 13]
    assert [plan.group_of(number) for number in (9, 10, 12)] == [4, 5, 6]


def test_contenders_that_compile_for_long_are_not_in_series_of_sizes():
    plan = Plan(_settings(levels=("training",)))
    slow = {turn.case.name for turn in plan.turns if turn.contender == "torch-compile"}
    assert "two-layer, batch 512" in slow
    assert "two-layer, batch 512, raw arrays" in slow
    assert "two-layer, batch 10" not in slow
    assert "two-layer 2048, batch 512" not in slow


@pytest.mark.parametrize(
    ("request_", "processes"),
    [
        (RunRequest(), 3),
        (RunRequest(passes=1), 1),
        (RunRequest(profile="full"), 6),
        (RunRequest(profile="full", passes=12, processes=4), 4),
    ],
)
def test_processes_fit_the_passes(request_, processes):
    assert resolve(request_).processes == processes


def test_passes_are_divided_among_the_processes():
    plan = Plan(_settings(levels=("inference",), passes=5, processes=2))
    numbers = sorted({turn.number for turn in plan.turns})
    assert numbers == [0, 1, 2, 3, 4]
    assert [plan.group_of(number) for number in numbers] == [0, 0, 0, 1, 1]
