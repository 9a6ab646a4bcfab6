"""Intervals have the stated coverage on generated times."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.statistics import (
    Estimate,
    Turn,
    change_of_ratio,
    fitted_exponent,
    paired_ratio,
    spread,
)

TRUE = 2.0


def _pair(rng, *, processes=5, turns=2, phases=0.3, process=0.03, noise=0.05):
    """Return the rounds of two rows; the first takes twice as long.

    Slow phases of the machine affect both in a turn; each process and each turn has its own noise.
    """
    rows = {}, {}
    for group in range(processes):
        own = rng.normal(0, process, 2)
        for number in range(turns):
            machine = rng.normal(0, phases)
            for row, seconds, slower in zip(rows, (TRUE, 1.0), own, strict=True):
                turn = Turn(group, (group, number))
                logarithm = machine + slower + rng.normal(0, noise) + rng.normal(0, noise, 3)
                row[turn] = seconds * np.exp(logarithm)
    return rows


def test_spread_of_all_turns():
    result = spread({Turn(0, 0): np.arange(1.0, 6.0), Turn(0, 1): np.arange(6.0, 12.0)})
    assert (result.median, result.p10, result.p90, result.n) == (6.0, 2.0, 10.0, 11)


@given(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3))
def test_turns_without_noise_have_an_interval_without_width(numerator, denominator):
    rng = np.random.default_rng(0)
    rows = [{Turn(p, p): np.full(4, one) for p in range(3)} for one in (numerator, denominator)]
    result = paired_ratio(*rows, rng)
    ratio = numerator / denominator
    assert [result.value, result.low, result.high] == pytest.approx([ratio] * 3)
    assert result.n == 3


def test_slow_phases_of_the_machine_cancel():
    rng = np.random.default_rng(1)
    first, second = _pair(rng, phases=1.0, process=0, noise=0.001)
    assert spread(first).p90 > 2 * spread(first).p10
    result = paired_ratio(first, second, rng)
    assert result.value == pytest.approx(TRUE, rel=0.003)
    assert result.half_width < 0.005


@pytest.mark.parametrize(("processes", "turns"), [(3, 4), (5, 2), (8, 2)])
def test_interval_covers_the_true_ratio_and_that_of_a_second_run(processes, turns):
    rng = np.random.default_rng(2)
    true = again = 0
    widths, trials = [], 200
    for _ in range(trials):
        first, second = (
            paired_ratio(*_pair(rng, processes=processes, turns=turns), rng) for _ in range(2)
        )
        true += TRUE in first
        again += second.value in first
        widths.append(first.half_width)
    assert true >= 0.95 * trials
    assert again >= 0.90 * trials  # the interval is meant to cover 95 %
    assert np.median(widths) < 0.3


def test_processes_count_as_units_not_their_turns():
    """Many turns in few processes tell little about how processes vary."""
    rng = np.random.default_rng(3)
    few, many = (
        paired_ratio(*_pair(rng, processes=count, turns=60 // count, process=0.1, noise=0), rng)
        for count in (3, 30)
    )
    assert few.half_width > 2 * many.half_width


def test_interval_wider_than_a_factor_of_two_is_undecided():
    assert Estimate(1.5, 1.0, 2.0, 10).is_decided
    assert not Estimate(1.5, 1.0, 2.1, 10).is_decided
    rng = np.random.default_rng(4)
    assert not paired_ratio(*_pair(rng, process=1.0), rng).is_decided
    alone = paired_ratio(*({Turn(0, 0): np.ones(9) * one} for one in (2.0, 1.0)), rng)
    assert (alone.value, alone.is_decided, alone.n) == (2.0, False, 1)
    assert math.isfinite(alone.high)


def test_rows_without_a_common_pass_have_no_ratio():
    rng = np.random.default_rng(5)
    rows = [{Turn(p, p): np.ones(2) for p in passes} for passes in ((0, 1), (2, 3))]
    assert paired_ratio(*rows, rng) is None
    assert change_of_ratio(rows, [rows[0]], rng) is None
    assert fitted_exponent([1, 2], rows, rng) is None


@pytest.mark.parametrize("factor", [1.0, 1.3])
def test_change_between_two_runs_is_found(factor):
    rng = np.random.default_rng(6)
    found = 0
    for _ in range(60):
        old, new = _pair(rng, process=0.01, noise=0.01), _pair(rng, process=0.01, noise=0.01)
        slower = {turn: factor * seconds for turn, seconds in new[0].items()}
        change = change_of_ratio([slower, new[1]], old, rng)
        found += factor in change and (1.0 in change) == (factor == 1.0)
    assert found >= 53


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_exponent_of_times_without_noise(exponent):
    rng = np.random.default_rng(7)
    sizes = [1, 10, 64, 512]
    rounds = [{Turn(p, p): np.full(3, 1e-5 * s**exponent) for p in range(3)} for s in sizes]
    result = fitted_exponent(sizes, rounds, rng)
    assert [result.value, result.low, result.high] == pytest.approx([exponent] * 3, abs=1e-9)


def test_interval_covers_the_exponent():
    rng = np.random.default_rng(8)
    sizes = [25, 50, 100, 200, 400]
    fits = []
    for _ in range(60):
        rows = [_pair(rng, phases=0.1)[1] for _ in sizes]
        scaled = [
            {turn: seconds * 1e-5 * size**0.8 for turn, seconds in row.items()}
            for size, row in zip(sizes, rows, strict=True)
        ]
        fits.append(fitted_exponent(sizes, scaled, rng))
    assert sum(0.8 in fit for fit in fits) >= 54
    assert max(fit.high - fit.low for fit in fits) < 0.6


def test_same_seed_gives_the_same_interval():
    rows = _pair(np.random.default_rng(9))
    first, second = (paired_ratio(*rows, np.random.default_rng(0)) for _ in range(2))
    assert first == second
