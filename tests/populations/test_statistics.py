"""Means over seeds and paired comparisons, against scipy.stats."""

import math

import numpy as np
import pytest
from scipy import stats

from mnist_accel.populations.statistics import compare_paired, mean_of

FIRST = dict(enumerate([0.91, 0.93, 0.90, 0.95, 0.92]))
SECOND = dict(enumerate([0.92, 0.95, 0.91, 0.95, 0.94]))


def compare(first, second, measure="test_accuracy"):
    return compare_paired(first, second, names=("lr=1", "lr=2"), measure=measure)


def test_the_interval_of_a_mean_is_that_of_student_s_t():
    values = list(FIRST.values())
    mean = mean_of(values)
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (mean.n, mean.mean, mean.std) == (5, np.mean(values), np.std(values, ddof=1))
    assert (mean.low, mean.high) == pytest.approx((low, high))


def test_one_value_has_a_mean_without_interval_and_no_value_has_neither():
    assert (mean_of([0.5]).mean, math.isnan(mean_of([0.5]).low)) == (0.5, True)
    assert (mean_of([]).n, math.isnan(mean_of([]).mean)) == (0, True)


def test_the_95_percent_interval_contains_the_true_mean_in_95_percent_of_samples():
    rng = np.random.default_rng(0)
    means = [mean_of(rng.normal(3, 2, size=8).tolist()) for _ in range(2000)]
    assert np.mean([m.low <= 3 <= m.high for m in means]) == pytest.approx(0.95, abs=0.015)


def test_a_comparison_is_the_paired_t_test():
    result = compare(FIRST, SECOND)
    expected = stats.ttest_rel(list(SECOND.values()), list(FIRST.values()))
    assert result.p_value == pytest.approx(expected.pvalue)
    assert result.difference == pytest.approx(0.012)
    assert (result.low, result.high) == pytest.approx(expected.confidence_interval(0.95))


def test_a_comparison_uses_only_seeds_with_both_values():
    assert compare(FIRST, {**SECOND, 9: 0.1}).n == 5
    with pytest.raises(ValueError, match="have a test_accuracy for 1 common seed;"):
        compare({1: 0.5, 2: 0.5}, {1: 0.5, 3: 0.5})


@pytest.mark.parametrize(
    ("second", "measure", "verdict"),
    [
        (SECOND, "test_accuracy", "lr=2 is better"),
        (SECOND, "test_loss", "lr=2 is worse"),
        (FIRST, "test_accuracy", "no difference is shown"),
    ],
)
def test_a_comparison_says_in_words_which_setting_is_better(second, measure, verdict):
    assert str(compare(FIRST, second, measure)).startswith(verdict)


def test_equal_differences_of_all_seeds_have_no_uncertainty():
    result = compare({1: 0.5, 2: 0.75}, {1: 0.75, 2: 1.0})
    assert (result.difference, result.low, result.high, result.p_value) == (0.25, 0.25, 0.25, 0)
