"""Medians and percentiles of measured seconds, and intervals for ratios and exponents.

Two contenders are compared turn by turn: each pass has one turn of both, a fraction of a second
apart, so a slow phase of the machine slows both and cancels in their ratio. A process keeps what it
got at its start (addresses of arrays, cores of its threads), so its turns are not independent.
Therefore the bootstrap draws processes, each with all of its turns.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

CONFIDENCE = 0.95
RESAMPLES = 2000
# An estimate whose interval is wider than this factor is no result.
MAX_WIDTH = 2.0


class Turn(NamedTuple):
    """Identifies a turn: the processes that ran at its time, and the number of its pass."""

    process: Hashable
    number: Hashable


# Seconds of each round of a row, by turn.
Rounds: TypeAlias = Mapping[Turn, NDArray[np.float64]]
# A logarithm or an exponent for each turn.
Values: TypeAlias = Mapping[Turn, float]


@dataclass(frozen=True)
class Estimate:
    """A ratio or an exponent with its interval, from n turns."""

    value: float
    low: float
    high: float
    n: int = 0

    @property
    def is_decided(self) -> bool:
        """Whether the interval of a ratio spans at most a factor of `MAX_WIDTH`."""
        return self.high <= MAX_WIDTH * self.low

    @property
    def half_width(self) -> float:
        """How far the ends of a ratio's interval are from its center, as a fraction: 0.1 is ±10 %.

        The center is the geometric mean of both ends.
        """
        return math.sqrt(self.high / self.low) - 1

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Spread:
    """The seconds of all rounds: median, 10th and 90th percentile, and number of rounds."""

    median: float
    p10: float
    p90: float
    n: int


def spread(rounds: Rounds) -> Spread:
    """Return the median and the percentiles of the rounds of all turns."""
    seconds = np.concatenate(list(rounds.values()))
    p10, median, p90 = (float(value) for value in np.percentile(seconds, [10, 50, 90]))
    return Spread(median, p10, p90, seconds.size)


def paired_ratio(
    numerator: Rounds, denominator: Rounds, rng: np.random.Generator
) -> Estimate | None:
    """Return the median of the ratios of two rows within the passes that both took part in.

    The ratio of a second run on the same machine is expected in the interval. Both runs contain
    noise, so it is √2 times as wide as a confidence interval of the true ratio.

    Returns:
        None if the rows have no pass in common.
    """
    logarithms = _log_ratios(numerator, denominator)
    return _exponential(_estimate(logarithms, rng, widen=math.sqrt(2))) if logarithms else None


def change_of_ratio(
    new: Sequence[Rounds], old: Sequence[Rounds], rng: np.random.Generator
) -> Estimate | None:
    """Return how a time, or a ratio of times, changed between two independent runs.

    Args:
        new: rounds of a case in the later run and, for a ratio, those of its baseline.
        old: the same in the earlier run.
        rng: draws the bootstrap samples.

    Returns:
        The time or ratio of the later run divided by that of the earlier run; None if the row and
        its baseline have no pass in common.
    """
    later, earlier = _log_ratios(*new), _log_ratios(*old)
    if not later or not earlier:
        return None
    value = _median(later) - _median(earlier)
    drawn = _bootstrap(later, rng) - _bootstrap(earlier, rng)
    groups = min(_groups(later), _groups(earlier))
    turns = min(len(later), len(earlier))
    return _exponential(_interval(value, drawn, groups=groups, turns=turns))


def fitted_exponent(
    sizes: ArrayLike, rounds: Sequence[Rounds], rng: np.random.Generator
) -> Estimate | None:
    """Fit e in time ∝ sizeᵉ by least squares of the logarithms of at least two different sizes.

    One exponent is fitted per pass, then their median is returned; None if no pass has all sizes.
    """
    x = np.log(np.asarray(sizes, dtype=np.float64))
    centered = x - x.mean()
    slope = centered / (centered @ centered)
    logarithms = [_log_ratios(row) for row in rounds]
    common = [turn for turn in logarithms[0] if all(turn in row for row in logarithms)]
    exponents = {turn: float(slope @ [row[turn] for row in logarithms]) for turn in common}
    return _estimate(exponents, rng) if exponents else None


def _log_ratios(row: Rounds, baseline: Rounds | None = None) -> dict[Turn, float]:
    """Return the logarithm of the median of each turn, minus that of the baseline if given."""
    logarithms = {turn: float(np.log(np.median(seconds))) for turn, seconds in row.items()}
    if baseline is None:
        return logarithms
    others = _log_ratios(baseline)
    return {turn: value - others[turn] for turn, value in logarithms.items() if turn in others}


def _estimate(values: Values, rng: np.random.Generator, *, widen: float = 1.0) -> Estimate:
    drawn = _bootstrap(values, rng)
    return _interval(_median(values), drawn, groups=_groups(values), turns=len(values), widen=widen)


def _median(values: Values) -> float:
    return float(np.median(list(values.values())))


def _by_process(values: Values) -> list[NDArray[np.float64]]:
    """Return the values of each process; those of a single process count as one process each."""
    grouped: dict[Hashable, list[float]] = {}
    for turn, value in values.items():
        grouped.setdefault(turn.process, []).append(value)
    if len(grouped) == 1:
        return [np.array([value]) for value in values.values()]
    return [np.array(group) for group in grouped.values()]


def _groups(values: Values) -> int:
    return len(_by_process(values))


def _bootstrap(values: Values, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return medians (RESAMPLES,) of samples of processes, each with all of its turns."""
    groups = _by_process(values)
    table = np.full((len(groups), max(group.size for group in groups)), np.nan)
    for row, group in enumerate(groups):
        table[row, : group.size] = group
    drawn = rng.integers(len(groups), size=(RESAMPLES, len(groups)))
    return np.asarray(np.nanmedian(table[drawn].reshape(RESAMPLES, -1), axis=1))


def _interval(
    value: float,
    drawn: NDArray[np.float64],
    *,
    groups: int,
    turns: int,
    widen: float = 1.0,
) -> Estimate:
    """Return the t interval with the standard error of the drawn values.

    It is corrected for few processes (Hesterberg, "What Teachers Should Know About the Bootstrap",
    2015): drawing from P processes shows (P − 1)/P of the true variance, and a normal distribution
    has thinner tails than Student's t with P − 1 degrees of freedom. The percentiles of the drawn
    values cover less in tests with five processes. One value alone has an infinite interval.
    """
    if groups == 1:
        return Estimate(value, -math.inf, math.inf, turns)
    error = float(drawn.std()) * math.sqrt(groups / (groups - 1))
    half = -float(stdtrit(groups - 1, (1 - CONFIDENCE) / 2)) * error * widen
    return Estimate(value, value - half, value + half, turns)


def _exponential(estimate: Estimate) -> Estimate:
    """Return the estimate of a ratio from that of its logarithm; ends are at most e⁵⁰ apart."""
    low, high = max(estimate.low, -50.0), min(estimate.high, 50.0)
    return Estimate(math.exp(estimate.value), math.exp(low), math.exp(high), estimate.n)
