"""Intervals have the stated coverage on generated times."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from benchmarks.statistics import (
    bootstrap_medians,
    change_of_ratio,
    fitted_exponent,
    ratio_of_medians,
    spread,
)


def _rounds(rng, seconds, *, passes=5, rounds=10, machine=None, row=0.02, noise=0.02):
    """Return the rounds of a row, with noise per machine and pass, per row and pass, per round."""
    shared = np.zeros(passes) if machine is None else machine
    return {
        number: seconds * np.exp(shared[number] + rng.normal(0, row) + rng.normal(0, noise, rounds))
        for number in range(passes)
    }


def test_spread_of_all_passes():
    result = spread({0: np.arange(1.0, 6.0), 1: np.arange(6.0, 12.0)})
    assert (result.median, result.p10, result.p90, result.n) == (6.0, 2.0, 10.0, 11)


@given(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3))
def test_rounds_without_noise_have_an_interval_without_width(numerator, denominator):
    rng = np.random.default_rng(0)
    result = ratio_of_medians({0: np.full(4, numerator)}, {0: np.full(4, denominator)}, rng)
    ratio = numerator / denominator
    assert [result.value, result.low, result.high] == pytest.approx([ratio] * 3)


def test_one_pass_has_the_interval_of_its_rounds():
    """With a single pass, it is the percentile bootstrap, widened for the noise of a second run."""
    rng = np.random.default_rng(1)
    seconds = rng.lognormal(0, 0.1, 50)
    result = ratio_of_medians({0: seconds}, {0: np.ones(1)}, rng)
    known = bootstrap((seconds,), np.median, method="percentile", rng=rng).confidence_interval
    median = np.log(np.median(seconds))
    expected = np.exp(median + np.sqrt(2) * (np.log(list(known)) - median))
    assert [result.low, result.high] == pytest.approx(list(expected), rel=0.015)


@pytest.mark.parametrize("passes", [3, 6])
def test_interval_covers_second_runs_at_its_confidence_level(passes):
    """Rows vary between passes; a bootstrap of rounds only would cover half of the second runs."""
    rng = np.random.default_rng(2)
    again = 0
    trials = 100
    for _ in range(trials):
        first, second = (
            ratio_of_medians(
                _rounds(rng, 2.0, passes=passes, machine=machine, row=0.04),
                _rounds(rng, 1.0, passes=passes, machine=machine, row=0.04),
                rng,
            )
            for machine in rng.normal(0, 0.2, (2, passes))
        )
        again += first.low <= second.value <= first.high
    # Minus three standard deviations of this count.
    assert again / trials >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials)


def test_noise_common_to_a_pass_cancels():
    rng = np.random.default_rng(3)
    machine = np.array([0.0, 0.5, -0.4, 0.8, 0.1])
    rows = [
        _rounds(rng, seconds, machine=machine, row=0.002, noise=0.002) for seconds in (2.0, 1.0)
    ]
    paired = ratio_of_medians(*rows, rng)
    assert paired.high / paired.low < 1.05
    # Passes of another file are different passes, so nothing cancels.
    unpaired = ratio_of_medians(rows[0], {f"other {k}": v for k, v in rows[1].items()}, rng)
    assert unpaired.high / unpaired.low > 1.5


def test_passes_count_equally_with_any_number_of_rounds():
    rng = np.random.default_rng(4)
    rounds = {0: np.full(100, 1.0), 1: np.full(2, 2.0), 2: np.full(2, 2.0)}
    medians = bootstrap_medians([rounds], rng)
    # At least two of three drawn passes are slow with probability 20/27.
    assert np.mean(medians > 1.5) == pytest.approx(20 / 27, abs=0.05)


@pytest.mark.parametrize("drift", [1.0, 1.3])
def test_changes_are_distinguished_from_noise_and_drift(drift):
    """A change of 20 % is found, and no other change, also on a slower machine."""
    rng = np.random.default_rng(5)
    found = invented = 0
    trials = 40
    for _ in range(trials):
        old = [_rounds(rng, seconds) for seconds in (1.0, 3.0)]
        same = [_rounds(rng, seconds * drift) for seconds in (1.0, 3.0)]
        slower = [_rounds(rng, seconds * drift) for seconds in (1.2, 3.0)]
        found += change_of_ratio(slower, old, rng).low > 1
        invented += change_of_ratio(same, old, rng).low > 1
    assert found >= 0.95 * trials
    assert invented <= 0.05 * trials


@given(st.floats(0.0, 2.0))
def test_exponent_without_noise_is_exact(exponent):
    rng = np.random.default_rng(6)
    sizes = [1, 10, 64, 512]
    rounds = [{0: np.full(3, 1e-5 * size**exponent)} for size in sizes]
    result = fitted_exponent(sizes, rounds, rng)
    values = [result.value, result.low, result.high]
    assert values == pytest.approx([exponent] * 3, abs=1e-9)


def test_interval_covers_the_exponent():
    rng = np.random.default_rng(7)
    sizes = [25, 50, 100, 200, 400]
    fits = [
        fitted_exponent(sizes, [_rounds(rng, 1e-5 * size**0.8) for size in sizes], rng)
        for _ in range(60)
    ]
    assert sum(fit.low <= 0.8 <= fit.high for fit in fits) >= 53
    assert max(fit.high - fit.low for fit in fits) < 0.1


def test_same_seed_gives_the_same_interval():
    rows = [_rounds(np.random.default_rng(8), seconds) for seconds in (1.0, 2.0)]
    first, second = (ratio_of_medians(*rows, np.random.default_rng(0)) for _ in range(2))
    assert first == second
