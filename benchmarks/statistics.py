"""Medians and percentiles of measured seconds, and intervals for ratios and exponents.

The rounds of one pass are not independent: they share the state of the machine and the memory
layout of the process. Therefore the bootstrap draws passes first, then rounds within them. All rows
of a run have the same passes, so it draws the same passes for all rows that it compares.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

# Seconds of each round, by pass.
Rounds: TypeAlias = Mapping[Hashable, NDArray[np.float64]]

CONFIDENCE = 0.95
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """An estimate and its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """The seconds of all rounds: median, 10th and 90th percentile, and number of rounds."""

    median: float
    p10: float
    p90: float
    n: int


def pooled(rounds: Rounds) -> NDArray[np.float64]:
    """Return the rounds of all passes in one array."""
    return np.concatenate(list(rounds.values()))


def spread(rounds: Rounds) -> Spread:
    """Return the median and the percentiles of the rounds of all passes."""
    seconds = pooled(rounds)
    p10, median, p90 = (float(value) for value in np.percentile(seconds, [10, 50, 90]))
    return Spread(median, p10, p90, seconds.size)


def ratio_of_medians(numerator: Rounds, denominator: Rounds, rng: np.random.Generator) -> Estimate:
    """Return the ratio of the medians of two rows of one run, paired by pass if they share passes.

    The interval predicts the ratio of a second run on the same machine. Both runs contain noise, so
    it is √2 times as wide as a confidence interval of the true ratio.
    """
    paired = [numerator, denominator]
    medians = bootstrap_medians(paired, rng)
    drawn = np.log(medians[:, 0]) - np.log(medians[:, 1])
    value = np.log(_median(numerator)) - np.log(_median(denominator))
    estimate = _interval(value, drawn, _passes(paired))
    return _exponential(_widened(estimate, np.sqrt(2)))


def change_of_ratio(
    new: Sequence[Rounds],
    old: Sequence[Rounds],
    rng: np.random.Generator,
) -> Estimate:
    """Return how a time, or a ratio of times, changed between two independent runs.

    Args:
        new: rounds of a case in the later run and, for a ratio, those of its baseline.
        old: the same in the earlier run.
        rng: draws the bootstrap samples.

    Returns:
        The time or ratio of the later run divided by that of the earlier run.
    """

    def logarithm(medians: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log(first), or log(first / second) if there are two medians."""
        return np.asarray(np.log(medians[..., 0]) - np.log(medians[..., 1:]).sum(axis=-1))

    value = logarithm(np.array([_median(rounds) for rounds in new])) - logarithm(
        np.array([_median(rounds) for rounds in old])
    )
    drawn = logarithm(bootstrap_medians(new, rng)) - logarithm(bootstrap_medians(old, rng))
    passes = min(_passes(new), _passes(old))
    return _exponential(_interval(float(value), drawn, passes))


def fitted_exponent(
    sizes: ArrayLike,
    rounds: Sequence[Rounds],
    rng: np.random.Generator,
) -> Estimate:
    """Fit e in time ∝ sizeᵉ by least squares of the logarithms of at least two different sizes."""
    x = np.log(np.asarray(sizes, dtype=np.float64))
    centered = x - x.mean()
    slope = centered / (centered @ centered)
    value = float(slope @ np.log([_median(one) for one in rounds]))
    drawn = np.log(bootstrap_medians(rounds, rng)) @ slope
    return _interval(value, drawn, _passes(rounds))


def bootstrap_medians(
    samples: Sequence[Rounds], rng: np.random.Generator, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Return the medians of bootstrap samples, of shape (resamples, len(samples)).

    Passes are drawn with replacement, then rounds within each drawn pass. The same passes are drawn
    for all samples. If the samples have no pass in common, which can happen in an interrupted run,
    passes are drawn for each sample separately.
    """
    common = _common_passes(samples)
    shared = rng.integers(len(common), size=(resamples, len(common))) if common else None
    medians = np.empty((resamples, len(samples)))
    for column, rounds in enumerate(samples):
        labels = common or list(rounds)
        drawn = shared
        if drawn is None:
            drawn = rng.integers(len(labels), size=(resamples, len(labels)))
        lengths = np.array([rounds[label].size for label in labels])
        table = np.zeros((len(labels), lengths.max()))
        for row, label in enumerate(labels):
            table[row, : lengths[row]] = rounds[label]
        # The same number of rounds is drawn from each pass, so that all passes count equally.
        count = max(1, round(lengths.mean()))
        within = (rng.random((*drawn.shape, count)) * lengths[drawn][..., None]).astype(np.intp)
        medians[:, column] = np.median(
            table[drawn[..., None], within].reshape(resamples, -1), axis=1
        )
    return medians


def _median(rounds: Rounds) -> float:
    return float(np.median(pooled(rounds)))


def _common_passes(samples: Sequence[Rounds]) -> list[Hashable]:
    """Return the passes that all samples have, in order."""
    return [label for label in samples[0] if all(label in rounds for rounds in samples)]


def _passes(samples: Sequence[Rounds]) -> int:
    """Return the number of passes on which an estimate is based."""
    return len(_common_passes(samples)) or min(len(rounds) for rounds in samples)


def _interval(value: float, drawn: NDArray[np.float64], passes: int) -> Estimate:
    """Return the percentile interval of the drawn values, corrected for few passes.

    Drawing from P passes shows (P − 1)/P of the true variance, and a normal distribution has
    thinner tails than Student's t with P − 1 degrees of freedom. The percentile interval is too
    short by the product of both factors (Hesterberg, "What Teachers Should Know About the
    Bootstrap", 2015). A single pass does not show how passes vary; its interval covers only the
    variation of its rounds.
    """
    tail = (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn, [100 * tail, 100 * (1 - tail)])
    factor = 1.0
    if passes > 1:
        factor = float(stdtrit(passes - 1, tail) / ndtri(tail) * np.sqrt(passes / (passes - 1)))
    return _widened(Estimate(value, float(low), float(high)), factor)


def _widened(estimate: Estimate, factor: float) -> Estimate:
    """Return the estimate with both halves of its interval multiplied by `factor`."""
    value = estimate.value
    low, high = (value + factor * (end - value) for end in (estimate.low, estimate.high))
    return Estimate(value, low, high)


def _exponential(estimate: Estimate) -> Estimate:
    return Estimate(*(float(np.exp(x)) for x in (estimate.value, estimate.low, estimate.high)))
