"""What the measured seconds say: medians, percentiles, and intervals for what follows from them.

Rounds of one pass are not independent: a pass shares the state of the machine, and the layout that
its process got in memory. So the bootstrap draws passes first, then rounds within them; and since
all cases of a run go through the same passes, it draws the same passes for all that it compares.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

# Seconds of each round, by the pass that they were taken in.
Rounds: TypeAlias = Mapping[Hashable, NDArray[np.float64]]

CONFIDENCE = 0.95
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A figure, and the interval in which it is to be sought."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """Seconds of all rounds: median, the tenth and the ninetieth percentile, and their number."""

    median: float
    p10: float
    p90: float
    n: int


def pooled(rounds: Rounds) -> NDArray[np.float64]:
    """Return the rounds of all passes in one array."""
    return np.concatenate(list(rounds.values()))


def spread(rounds: Rounds) -> Spread:
    """Describe the rounds of all passes."""
    seconds = pooled(rounds)
    p10, median, p90 = (float(value) for value in np.percentile(seconds, [10, 50, 90]))
    return Spread(median, p10, p90, seconds.size)


def ratio_of_medians(
    numerator: Rounds, denominator: Rounds, rng: np.random.Generator, confidence: float = CONFIDENCE
) -> Estimate:
    """Compare two cases of one run; pass by pass where they share passes.

    The interval is where a second run on the same machine is to be expected. Both runs have their
    noise, so it is √2 times as wide as one that holds the true ratio.

    Args:
        numerator: seconds of the one.
        denominator: seconds of the other.
        rng: draws the bootstrap samples.
        confidence: of the interval.
    """
    paired = [numerator, denominator]
    medians = bootstrap_medians(paired, rng)
    drawn = np.log(medians[:, 0]) - np.log(medians[:, 1])
    value = np.log(_median(numerator)) - np.log(_median(denominator))
    estimate = _interval(value, drawn, _passes(paired), confidence)
    return _exponential(_widened(estimate, np.sqrt(2)))


def change_of_ratio(
    new: Sequence[Rounds],
    old: Sequence[Rounds],
    rng: np.random.Generator,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Compare a figure of two runs that have nothing in common.

    Args:
        new: seconds of a case in the later run, and those of what it is measured against in that
            run, if anything.
        old: likewise in the earlier run.
        rng: draws the bootstrap samples.
        confidence: of the interval.

    Returns:
        The figure of the later run divided by that of the earlier one.
    """

    def logarithm(medians: NDArray[np.float64]) -> NDArray[np.float64]:
        """The first median over the second, if there is one."""
        return np.asarray(np.log(medians[..., 0]) - np.log(medians[..., 1:]).sum(axis=-1))

    value = logarithm(np.array([_median(rounds) for rounds in new])) - logarithm(
        np.array([_median(rounds) for rounds in old])
    )
    drawn = logarithm(bootstrap_medians(new, rng)) - logarithm(bootstrap_medians(old, rng))
    passes = min(_passes(new), _passes(old))
    return _exponential(_interval(float(value), drawn, passes, confidence))


def fitted_exponent(
    sizes: ArrayLike,
    rounds: Sequence[Rounds],
    rng: np.random.Generator,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Fit e in time ∝ sizeᵉ by least squares of the logarithms.

    Args:
        sizes: (S,) at least two different ones.
        rounds: seconds at each size.
        rng: draws the bootstrap samples.
        confidence: of the interval.
    """
    x = np.log(np.asarray(sizes, dtype=np.float64))
    centred = x - x.mean()
    slope = centred / (centred @ centred)
    value = float(slope @ np.log([_median(one) for one in rounds]))
    drawn = np.log(bootstrap_medians(rounds, rng)) @ slope
    return _interval(value, drawn, _passes(rounds), confidence)


def bootstrap_medians(
    samples: Sequence[Rounds], rng: np.random.Generator, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Draw passes with replacement, the same for all samples, and rounds within them; take medians.

    Samples without a common pass, as an interrupted run may leave them, each have their own draw.

    Returns:
        (resamples, samples) medians.
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
        # As many rounds from every pass: passes that were given more time do not count for more.
        count = max(1, round(lengths.mean()))
        within = (rng.random((*drawn.shape, count)) * lengths[drawn][..., None]).astype(np.intp)
        medians[:, column] = np.median(
            table[drawn[..., None], within].reshape(resamples, -1), axis=1
        )
    return medians


def _median(rounds: Rounds) -> float:
    return float(np.median(pooled(rounds)))


def _common_passes(samples: Sequence[Rounds]) -> list[Hashable]:
    """The passes that all samples have, in their order."""
    return [label for label in samples[0] if all(label in rounds for rounds in samples)]


def _passes(samples: Sequence[Rounds]) -> int:
    """How many passes speak for an estimate."""
    return len(_common_passes(samples)) or min(len(rounds) for rounds in samples)


def _interval(value: float, drawn: NDArray[np.float64], passes: int, confidence: float) -> Estimate:
    """Percentiles of the drawn values, stretched for the small number of passes.

    Drawing from P passes shows (P − 1)/P of the true variance, and a normal distribution has
    thinner tails than Student's with P − 1 degrees of freedom, so the percentile interval is too
    short by the product of the two (Hesterberg, "What Teachers Should Know About the Bootstrap",
    2015). A single pass says nothing about others: its interval covers the rounds alone.
    """
    tail = (1 - confidence) / 2
    low, high = np.percentile(drawn, [100 * tail, 100 * (1 - tail)])
    stretch = 1.0
    if passes > 1:
        stretch = float(stdtrit(passes - 1, tail) / ndtri(tail) * np.sqrt(passes / (passes - 1)))
    return _widened(Estimate(value, float(low), float(high)), stretch)


def _widened(estimate: Estimate, factor: float) -> Estimate:
    """Move both ends away from the value."""
    value = estimate.value
    low, high = (value + factor * (end - value) for end in (estimate.low, estimate.high))
    return Estimate(value, low, high)


def _exponential(estimate: Estimate) -> Estimate:
    return Estimate(*(float(np.exp(x)) for x in (estimate.value, estimate.low, estimate.high)))
