"""Means over seeds, and paired comparisons of two settings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mnist_accel.util.text import count

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """The mean of a measure over the members with one setting.

    Attributes:
        n: number of members with a value.
        mean: their mean; NaN if n is 0.
        std: their standard deviation, computed with n - 1; NaN if n is less than 2.
        low: lower end of the 95 % confidence interval of the mean, from Student's t distribution.
        high: its upper end.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The difference between two settings, paired by seed.

    Attributes:
        measure: what is compared, such as "test_accuracy".
        first: name of the first setting, such as "lr=0.005".
        second: name of the second setting.
        n: number of seeds with both values.
        difference: mean of the second value minus the first.
        low: lower end of the 95 % confidence interval of the difference.
        high: its upper end.
        p_value: p-value of the paired t-test that the difference is 0.
    """

    measure: str
    first: str
    second: str
    n: int
    difference: float
    low: float
    high: float
    p_value: float

    def __str__(self) -> str:
        is_accuracy = self.measure.endswith("accuracy")
        unit, scale = (" percentage points", 100) if is_accuracy else ("", 1)
        low, high, difference = (scale * x for x in (self.low, self.high, self.difference))
        if self.p_value >= 1 - CONFIDENCE:
            verdict = "no difference is shown"
        else:
            is_better = (difference > 0) == is_accuracy  # lower losses and times are better
            verdict = f"{self.second} is {'better' if is_better else 'worse'}"
        name = self.measure.replace("_", " ")
        return (
            f"{verdict}: {name} of {self.second} minus {self.first} is "
            f"{difference:+.3g}{unit} (95 % interval {low:+.3g} to {high:+.3g}, "
            f"p = {self.p_value:.2g}, paired t-test over {self.n} seeds)"
        )


def mean_of(values: Sequence[float]) -> Mean:
    """Return mean, standard deviation and confidence interval of some values."""
    n = len(values)
    mean = float(np.mean(values)) if n else math.nan
    std = float(np.std(values, ddof=1)) if n > 1 else math.nan
    half = _half_width(std, n)
    return Mean(n, mean, std, mean - half, mean + half)


def compare_paired(
    first: dict[Any, float], second: dict[Any, float], *, names: tuple[str, str], measure: str
) -> Comparison:
    """Compare two settings by the seeds for which both have a value.

    Args:
        first: value of each seed with the first setting.
        second: value of each seed with the second setting.
        names: names of the settings.
        measure: what is compared.

    Raises:
        ValueError: fewer than two seeds have both values.
    """
    seeds = [seed for seed in first if seed in second]
    if len(seeds) < 2:
        raise ValueError(
            f"{names[0]} and {names[1]} have a {measure} for {count(len(seeds), 'common seed')}; a "
            "paired comparison needs at least 2"
        )
    differences = np.array([second[seed] - first[seed] for seed in seeds])
    mean = mean_of(differences.tolist())
    if mean.std == 0:  # all differences are equal, so the test statistic is 0/0 or infinite
        p_value = 1.0 if mean.mean == 0 else 0.0
    else:
        from scipy import stats  # takes a second to import

        p_value = float(stats.ttest_1samp(differences, 0).pvalue)
    return Comparison(
        measure, *names, n=mean.n, difference=mean.mean, low=mean.low, high=mean.high,
        p_value=p_value,
    )  # fmt: skip


def _half_width(std: float, n: int) -> float:
    """Return half the width of the confidence interval of a mean; NaN for a single value."""
    if n < 2:
        return math.nan
    from scipy import stats

    return float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * std / math.sqrt(n)
