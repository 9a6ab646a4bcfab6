"""Compares two runs row by row, and finds what became slower."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from benchmarks.report import numbers
from benchmarks.report.analysis import best_baseline
from benchmarks.statistics import CONFIDENCE, Estimate, change_of_ratio
from benchmarks.storage.results import ResultSet, load_results
from benchmarks.storage.schema import RowKey

SEED = 0
Verdict: TypeAlias = Literal["slower", "faster", "same", "undecided"]


@dataclass(frozen=True)
class Change:
    """How the time of one row changed.

    Attributes:
        key: level, case and contender.
        is_baseline: whether the contender is a baseline.
        ratio: time in the new run divided by time in the old run; if `baseline` is given, each is
            first divided by the time of that baseline.
        baseline: contender that the row is measured against; None to compare plain times.
    """

    key: RowKey
    is_baseline: bool
    ratio: Estimate
    baseline: str | None

    @property
    def verdict(self) -> Verdict:
        """Whether the interval of the ratio is above, below or around 1."""
        if not self.ratio.is_decided:
            return "undecided"
        if self.ratio.low > 1:
            return "slower"
        return "faster" if self.ratio.high < 1 else "same"

    def fails(self, fail_over: float) -> bool:
        """Whether a backend is significantly slower, and by more than this fraction."""
        return (
            not self.is_baseline and self.verdict == "slower" and self.ratio.value > 1 + fail_over
        )


@dataclass(frozen=True)
class Comparison:
    """Two runs, compared row by row.

    Attributes:
        changes: rows that have a time in both runs.
        broken: rows of backends that had a time in the old run and have none in the new run,
            although the new run measures their case and contender; with the reason.
        lost: other rows that have a time only in the old run; with the reason.
        gained: rows that have a time only in the new run.
        warnings: reasons to doubt the figures.
    """

    changes: tuple[Change, ...]
    broken: Mapping[RowKey, str]
    lost: Mapping[RowKey, str]
    gained: tuple[RowKey, ...]
    warnings: tuple[str, ...]

    def fails(self, fail_over: float) -> bool:
        """Whether a row of a backend is slower than allowed, or broken."""
        return bool(self.broken) or any(change.fails(fail_over) for change in self.changes)


def compare(old: ResultSet, new: ResultSet, rng: np.random.Generator) -> Comparison:
    """Compare each row of two runs.

    The speed of a machine varies from day to day, so a backend is compared by the ratio to the best
    baseline that both runs measured in the same version. Without such a baseline, and for baselines
    themselves, plain times are compared.
    """
    shared = [key for key in old.measurements if key in new.measurements]
    reasons = {row.key: f"absent: {row.reason}" for row in new.absent}
    reasons |= {row.key: f"failed: {row.reason}" for row in new.failed}
    gone = {
        key: reasons.get(key, "not measured")
        for key in old.measurements
        if key not in new.measurements
    }
    chosen = _chosen(new)
    broken = {
        key: reason
        for key, reason in gone.items()
        if not old.contenders[key[2]].is_baseline and chosen(key)
    }
    return Comparison(
        changes=tuple(_change(old, new, key, rng) for key in shared),
        broken=broken,
        lost={key: reason for key, reason in gone.items() if key not in broken},
        gained=tuple(key for key in new.measurements if key not in old.measurements),
        warnings=tuple(_warnings(old, new)),
    )


def _chosen(results: ResultSet) -> Callable[[RowKey], bool]:
    """Return a function of a row: whether a run contains both its case and its contender."""
    rows = [*results.measurements]
    rows += [row.key for row in (*results.absent, *results.failed)]
    cases = {(level, case) for level, case, _ in rows}
    contenders = {contender for _, _, contender in rows}
    return lambda key: key[:2] in cases and key[2] in contenders


def _change(
    old: ResultSet,
    new: ResultSet,
    key: RowKey,
    rng: np.random.Generator,
    *,
    among: frozenset[str] | None = None,
) -> Change:
    """Return the change of a row; `among` has the names of the baselines to choose from."""
    level, case, contender = key
    is_baseline = old.contenders[contender].is_baseline
    unchanged = (
        among
        if among is not None
        else {
            name
            for name, facts in old.contenders.items()
            if (level, case, name) in new.measurements and new.contenders[name] == facts
        }
    )
    before, after = old.measurements[key], new.measurements[key]
    baseline = None if is_baseline else best_baseline(old, before, unchanged)
    rounds_before, rounds_after = [before.call_rounds], [after.call_rounds]
    if baseline is not None:
        rounds_before.append(baseline.call_rounds)
        rounds_after.append(new.measurements[baseline.key].call_rounds)
    ratio = change_of_ratio(rounds_after, rounds_before, rng)
    name = None if baseline is None else baseline.contender
    if ratio is None:  # the row and its baseline have no pass in common
        return _change(old, new, key, rng, among=frozenset())
    return Change(key, is_baseline, ratio, name)


def _warnings(old: ResultSet, new: ResultSet) -> Iterator[str]:
    for name in ("cpu", "cores", "threads", "gpu"):
        before, after = getattr(old.host, name), getattr(new.host, name)
        if before != after:
            yield f"the runs come from different machines: {name} was {before}, is {after}"
    for which, results in (("old", old), ("new", new)):
        if not all(run.complete for run in results.runs):
            yield f"the {which} run is incomplete"


def compare_command(old_path: Path, new_path: Path, fail_over: float | None) -> int:
    """Print what changed between two result files.

    Args:
        old_path: result file of the earlier run.
        new_path: result file of the later run.
        fail_over: the comparison fails if a row of a backend is significantly slower, and by more
            than this fraction, or broken; None if it never fails.

    Returns:
        The exit code: 1 if it failed, 0 otherwise.

    Raises:
        UsageError: a file cannot be read or is not a result file.
    """
    old, new = load_results([old_path]), load_results([new_path])
    comparison = compare(old, new, np.random.default_rng(SEED))
    for warning in comparison.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(render(comparison, fail_over), end="")
    return int(fail_over is not None and comparison.fails(fail_over))


_HEADINGS: dict[Verdict, str] = {
    "undecided": "Undecided",
    "same": "No significant change",
    "faster": "Significantly faster",
    "slower": "Significantly slower",
}


def render(comparison: Comparison, fail_over: float | None) -> str:
    """Return the comparison as text; the most important part is last, next to the prompt."""
    blocks = []
    for verdict, heading in _HEADINGS.items():
        changes = [change for change in comparison.changes if change.verdict == verdict]
        changes.sort(key=lambda change: change.ratio.value)
        if changes:
            blocks.append(f"{heading}: {len(changes)}\n{_table(changes, fail_over)}")
    for heading, reasons in (
        ("Only in the new run", dict.fromkeys(comparison.gained, "new")),
        ("Only in the old run", comparison.lost),
        ("Backends without a time in the new run", comparison.broken),
    ):
        rows = "".join(f"  {', '.join(key)}: {reason}\n" for key, reason in reasons.items())
        if rows:
            blocks.append(f"{heading}: {len(reasons)}\n{rows}")
    return "\n".join([*blocks, _conclusion(comparison, fail_over)])


def _table(changes: Sequence[Change], fail_over: float | None) -> str:
    interval = f"{CONFIDENCE:.0%} interval"
    heading = ("", "case", "contender", "new/old", interval, "compared")
    rows = [heading, *(_cells(change, fail_over) for change in changes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heading))]
    right_aligned = {heading.index("new/old"), heading.index(interval)}
    lines = (
        "  ".join(
            cell.rjust(width) if column in right_aligned else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _cells(change: Change, fail_over: float | None) -> tuple[str, ...]:
    level, case, contender = change.key
    ratio = change.ratio
    return (
        "!" if fail_over is not None and change.fails(fail_over) else "",
        f"{level}: {case}",
        contender,
        f"{ratio.value:.3f}",
        f"{ratio.low:.3f} to {ratio.high:.3f}" if ratio.is_decided else numbers.undecided(ratio),
        "time" if change.baseline is None else f"time / time of {change.baseline}",
    )


def _conclusion(comparison: Comparison, fail_over: float | None) -> str:
    ours = [change for change in comparison.changes if not change.is_baseline]
    slower = sum(change.verdict == "slower" for change in ours)
    by_chance = len(ours) * (1 - CONFIDENCE) / 2
    text = (
        f"{slower} of {len(ours)} rows of this project are significantly slower; "
        f"{by_chance:.1f} are expected by chance.\n"
    )
    if fail_over is None:
        return text
    worse = sum(change.fails(fail_over) for change in ours)
    verdict = "FAILED" if comparison.fails(fail_over) else "passed"
    return (
        f"{text}{verdict}: {worse} by more than {fail_over:.0%} (marked !), "
        f"{len(comparison.broken)} without a time.\n"
    )
