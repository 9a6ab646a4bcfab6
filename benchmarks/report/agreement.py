"""Shows whether two runs of the same code agree: whether each predicts the ratios of the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.report import numbers
from benchmarks.report.analysis import SEED, Analysis, analyze
from benchmarks.statistics import CONFIDENCE, Estimate, paired_ratio
from benchmarks.storage.results import load_results
from benchmarks.storage.schema import RowKey
from mnist_accel.errors import UsageError

# Goals for a published set: the fraction of ratios in the interval of the other run, which is the
# confidence of the intervals, and the median of their half-widths.
MIN_INSIDE, MAX_HALF_WIDTH = CONFIDENCE, 0.15


@dataclass(frozen=True)
class Pair:
    """The ratio of a row to the same baseline in two runs."""

    key: RowKey
    baseline: str
    first: Estimate
    second: Estimate

    @property
    def is_decided(self) -> bool:
        """Whether both runs have a result."""
        return self.first.is_decided and self.second.is_decided

    @property
    def inside(self) -> int:
        """How many of the two ratios lie in the interval of the other run."""
        return (self.first.value in self.second) + (self.second.value in self.first)


@dataclass(frozen=True)
class Agreement:
    """The ratios of two runs; `pairs` are decided in both, `undecided` in at most one."""

    pairs: tuple[Pair, ...]
    undecided: tuple[Pair, ...]

    @property
    def inside(self) -> float:
        """The fraction of ratios that lie in the interval of the other run."""
        return sum(pair.inside for pair in self.pairs) / (2 * len(self.pairs))

    @property
    def half_width(self) -> float:
        """The median half-width of the intervals, as a fraction."""
        widths = [one.half_width for pair in self.pairs for one in (pair.first, pair.second)]
        return float(np.median(widths))

    @property
    def is_reached(self) -> bool:
        """Whether both goals are reached."""
        return self.inside >= MIN_INSIDE and self.half_width <= MAX_HALF_WIDTH


def agreement(first: Analysis, second: Analysis) -> Agreement:
    """Compare the ratios of this project's backends to the best baseline of the first run.

    Raises:
        UsageError: no row is in both runs with the same baseline.
    """
    rng, pairs = np.random.default_rng(SEED), []
    measured = second.results.measurements
    for key, row in first.rows.items():
        level, case, _ = key
        if row.is_baseline or row.estimate is None or row.baseline is None:
            continue
        ours, baseline = measured.get(key), measured.get((level, case, row.baseline))
        if ours is None or baseline is None:
            continue
        again = paired_ratio(baseline.call_rounds, ours.call_rounds, rng)
        if again is not None:
            pairs.append(Pair(key, row.baseline, row.estimate, again))
    decided = tuple(pair for pair in pairs if pair.is_decided)
    if not decided:
        raise UsageError("the two runs have no decided ratio in common")
    return Agreement(decided, tuple(pair for pair in pairs if not pair.is_decided))


def agree_command(first: Path, second: Path) -> int:
    """Print how far two result files agree; return 0 if the goals are reached, 1 if not.

    Raises:
        UsageError: a file cannot be read, or the files have no ratio in common.
    """
    one, other = (analyze(load_results([path])) for path in (first, second))
    found = agreement(one, other)
    print("\n".join(_lines(found)))
    return 0 if found.is_reached else 1


def _lines(found: Agreement) -> Sequence[str]:
    count = len(found.pairs)
    both = sum(pair.inside == 2 for pair in found.pairs)
    lines = []
    disagreeing = [pair for pair in found.pairs if pair.inside < 2]
    for heading, pairs in (("Outside", disagreeing), ("Undecided", found.undecided)):
        if pairs:
            lines.append(f"{heading}:")
            lines += [
                f"  {', '.join(pair.key)} / {pair.baseline}: "
                f"{numbers.ratio(pair.first)}, then {numbers.ratio(pair.second)}"
                for pair in pairs
            ]
    verdict = "reached" if found.is_reached else "NOT reached"
    return [
        *lines,
        f"{count} ratios are decided in both runs, {len(found.undecided)} are not.",
        f"{found.inside:.1%} lie in the interval of the other run (goal: {MIN_INSIDE:.0%}); "
        f"for {both} of {count} rows both do.",
        f"The median interval is ±{found.half_width:.1%} (goal: ±{MAX_HALF_WIDTH:.0%}).",
        f"The goals are {verdict}.",
    ]
