"""Has it become slower? Two runs beside each other, row by row."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from benchmarks.result_files import load_results
from benchmarks.results import ResultSet, RowKey
from benchmarks.rivals import best_peer
from benchmarks.statistics import CONFIDENCE, Estimate, change_of_ratio

SEED = 0
Verdict: TypeAlias = Literal["slower", "faster", "same"]
_SAME_MACHINE = ("cpu", "cores", "threads", "gpu")


@dataclass(frozen=True)
class Change:
    """How the time of one row changed.

    Attributes:
        key: level, case and contender.
        ratio: time in the new run over time in the old one, each divided by that of `peer`.
        peer: what the times are measured against; None where they stand for themselves.
        is_peer: whether it is somebody else's row.
    """

    key: RowKey
    is_peer: bool
    ratio: Estimate
    peer: str | None

    @property
    def verdict(self) -> Verdict:
        """Whether the interval of the ratio leaves out 1, and on which side."""
        if self.ratio.low > 1:
            return "slower"
        return "faster" if self.ratio.high < 1 else "same"

    def fails(self, fail_over: float) -> bool:
        """Whether our work is slower beyond noise, and by more than this fraction."""
        return not self.is_peer and self.verdict == "slower" and self.ratio.value > 1 + fail_over


@dataclass(frozen=True)
class Comparison:
    """Two runs beside each other.

    Attributes:
        changes: of the rows that have a time in both.
        broken: rows of ours that had a time in the old run and have none now, though the new run
            chose their case and contender, and why.
        lost: other rows that had a time in the old run alone, and why.
        gained: rows that have a time in the new run alone.
        warnings: why the figures may mean less than they seem to.
    """

    changes: tuple[Change, ...]
    broken: Mapping[RowKey, str]
    lost: Mapping[RowKey, str]
    gained: tuple[RowKey, ...]
    warnings: tuple[str, ...]


def compare(old: ResultSet, new: ResultSet, rng: np.random.Generator) -> Comparison:
    """Compare each row with itself in an earlier run.

    A machine is not as fast every day, so what is compared is the ratio to the best peer that both
    runs measured, at the same versions, or the plain time where there is no such peer. Peers
    themselves are compared by plain time.
    """
    shared = [key for key in old.measurements if key in new.measurements]
    changes = tuple(_change(old, new, key, rng) for key in shared)
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
        if not old.contenders[key[2]].is_peer and chosen(key)
    }
    lost = {key: reason for key, reason in gone.items() if key not in broken}
    gained = tuple(key for key in new.measurements if key not in old.measurements)
    return Comparison(changes, broken, lost, gained, tuple(_warnings(old, new)))


def _chosen(results: ResultSet) -> Callable[[RowKey], bool]:
    """Return what tells whether a run was to measure a row: its case and contender have others."""
    rows = [*results.measurements]
    rows += [row.key for row in (*results.absent, *results.failed)]
    cases = {(level, case) for level, case, _ in rows}
    contenders = {contender for _, _, contender in rows}
    return lambda key: key[:2] in cases and key[2] in contenders


def _change(old: ResultSet, new: ResultSet, key: RowKey, rng: np.random.Generator) -> Change:
    level, case, contender = key
    is_peer = old.contenders[contender].is_peer
    unchanged = {
        name
        for name, facts in old.contenders.items()
        if (level, case, name) in new.measurements and new.contenders[name] == facts
    }
    before, now = old.measurements[key], new.measurements[key]
    peer = None if is_peer else best_peer(old, before, unchanged)
    rounds_before, rounds_now = [before.call_rounds], [now.call_rounds]
    if peer is not None:
        rounds_before.append(peer.call_rounds)
        rounds_now.append(new.measurements[peer.key].call_rounds)
    ratio = change_of_ratio(rounds_now, rounds_before, rng)
    return Change(key, is_peer, ratio, None if peer is None else peer.contender)


def _warnings(old: ResultSet, new: ResultSet) -> Iterator[str]:
    for name in _SAME_MACHINE:
        before, now = getattr(old.host, name), getattr(new.host, name)
        if before != now:
            yield f"the runs come from different machines: {name} was {before}, is {now}"
    for which, results in (("old", old), ("new", new)):
        if not all(run.complete for run in results.runs):
            yield f"the {which} run did not come to its end"
        if any(len(measurement.rounds) == 1 for measurement in results.measurements.values()):
            yield f"the {which} run has rows of a single pass: their intervals are too narrow"


def compare_command(old_path: Path, new_path: Path, fail_over: float | None) -> int:
    """Print what changed between two result files.

    Args:
        old_path: the earlier run.
        new_path: the later run.
        fail_over: a fraction; a row that is slower beyond noise, and by more than this, makes the
            comparison fail, and so does a row of ours that has lost its time. None if nothing
            shall.

    Returns:
        The exit code: 1 if it failed, 0 otherwise.

    Raises:
        UsageError: a file cannot be read or is no result file.
    """
    old, new = load_results([old_path]), load_results([new_path])
    comparison = compare(old, new, np.random.default_rng(SEED))
    for warning in comparison.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(render(comparison, fail_over), end="")
    return int(fail_over is not None and failed(comparison, fail_over))


def failed(comparison: Comparison, fail_over: float) -> bool:
    """Whether a row of ours is slower than allowed, or has no time any more."""
    return bool(comparison.broken) or any(change.fails(fail_over) for change in comparison.changes)


_HEADINGS: dict[Verdict, str] = {
    "same": "Within noise",
    "faster": "Faster beyond noise",
    "slower": "Slower beyond noise",
}


def render(comparison: Comparison, fail_over: float | None) -> str:
    """Return the comparison as text; what matters most comes last, next to the prompt."""
    blocks = []
    for verdict, heading in _HEADINGS.items():
        changes = [change for change in comparison.changes if change.verdict == verdict]
        changes.sort(key=lambda change: change.ratio.value)
        if changes:
            blocks.append(f"{heading}: {len(changes)}\n{_table(changes, fail_over)}")
    for heading, reasons in (
        ("In the new run alone", dict.fromkeys(comparison.gained, "new")),
        ("In the old run alone", comparison.lost),
        ("Of this project, and without a time now", comparison.broken),
    ):
        rows = "".join(f"  {', '.join(key)}: {why}\n" for key, why in reasons.items())
        if rows:
            blocks.append(f"{heading}: {len(reasons)}\n{rows}")
    return "\n".join([*blocks, _conclusion(comparison, fail_over)])


def _table(changes: Sequence[Change], fail_over: float | None) -> str:
    heading = ("", "case", "contender", "new/old", f"{CONFIDENCE:.0%} interval", "what is compared")
    rows = [heading, *(_cells(change, fail_over) for change in changes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heading))]
    right = {heading.index("new/old"), heading.index(f"{CONFIDENCE:.0%} interval")}
    lines = (
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
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
        f"{ratio.low:.3f} to {ratio.high:.3f}",
        "time" if change.peer is None else f"time over that of {change.peer}",
    )


def _conclusion(comparison: Comparison, fail_over: float | None) -> str:
    ours = [change for change in comparison.changes if not change.is_peer]
    slower = sum(change.verdict == "slower" for change in ours)
    by_chance = len(ours) * (1 - CONFIDENCE) / 2
    text = (
        f"{slower} of {len(ours)} rows of this project are slower beyond noise; "
        f"chance alone would show {by_chance:.1f}.\n"
    )
    if fail_over is None:
        return text
    worse = sum(change.fails(fail_over) for change in ours)
    verdict = "FAILED" if failed(comparison, fail_over) else "passed"
    return (
        f"{text}{verdict}: {worse} by more than {fail_over:.0%} (marked !), "
        f"{len(comparison.broken)} without a time.\n"
    )
