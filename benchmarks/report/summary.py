"""The results in words; every word of it follows from the figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report import numbers
from benchmarks.report.analysis import (
    Analysis,
    Standing,
    crossover,
    rates_by_batch,
    times_to_accuracy,
)
from benchmarks.results import ResultSet

_NAMED = 3  # how many of a longer list are named


@dataclass(frozen=True)
class Summary:
    """What a reader takes along.

    Attributes:
        headline: one sentence.
        recipes: a sentence for each recipe.
        findings: a sentence for each other thing that matters.
        cautions: why the figures may mean less than they seem to; a sentence each.
    """

    headline: str
    recipes: tuple[str, ...]
    findings: tuple[str, ...]
    cautions: tuple[str, ...]


def summarise(analysis: Analysis) -> Summary:
    """Say what the results say."""
    findings = (
        *_losses(analysis),
        *_crossovers(analysis.results),
        *_accuracy(analysis.results),
        *_missing(analysis.results),
    )
    return Summary(
        _headline(analysis),
        tuple(_recipes(analysis)),
        findings,
        tuple(_cautions(analysis.results)),
    )


def _headline(analysis: Analysis) -> str:
    cases = analysis.recipes() or analysis.results.cases("training")
    rows = [row for row in map(analysis.fastest_own, cases) if row is not None]
    compared = [row for row in rows if row.speed is not None]
    if not rows:
        return "No training of this project was measured."
    if not compared:
        return "No peer took part: the figures compare this project's backends with each other."
    wins = sum(row.wins for row in compared)
    losses = sum(row.loses for row in compared)
    ratios = [row.speed.value for row in compared if row.speed]
    what = "recipes" if analysis.recipes() else "trainings"
    share = f"all {wins}" if 1 < wins == len(compared) else f"{wins} of {len(compared)}"
    parts = [f"faster than the best peer in {share} {what}"]
    if losses:
        parts.append(f"slower in {losses}")
    if wins + losses < len(compared):
        parts.append(f"not to be told apart in {len(compared) - wins - losses}")
    slowest, middle, fastest = (numbers.times(f(ratios)) for f in (min, np.median, max))
    return (
        f"In training, this project’s fastest backend is {_listed(parts)}: "
        f"{slowest} to {fastest} its speed, {middle} at the median."
    )


def _recipes(analysis: Analysis) -> Iterator[str]:
    for case in analysis.recipes():
        row = analysis.fastest_own(case)
        if row is None:
            continue
        measurement = row.measurement
        rate = numbers.count(measurement.images / measurement.round_seconds.median)
        yield f"{case.name}: {measurement.contender} trains {rate} images/s, {_against(row)}."


def _against(row: Standing) -> str:
    """How a row stands to the best peer."""
    if row.speed is None:
        return "with no peer to compare it with"
    relation = "" if row.wins or row.loses else ", which noise may explain"
    return (
        f"{numbers.times(row.speed.value)} the speed of {row.peer} "
        f"({numbers.interval(row.speed)}){relation}"
    )


def _losses(analysis: Analysis) -> Iterator[str]:
    for name, contender in analysis.results.contenders.items():
        rows = [
            row
            for row in analysis.standings.values()
            if row.measurement.contender == name and row.speed is not None
        ]
        if contender.is_peer or not rows:
            continue
        lost = sorted((row for row in rows if row.loses), key=_speed)
        if not lost:
            yield f"{name} loses nowhere beyond noise, in {len(rows)} rows of all three levels."
            continue
        worst = "; ".join(
            f"{row.measurement.case.level} {row.measurement.case.name} "
            f"({numbers.times(_speed(row))} the speed of {row.peer})"
            for row in lost[:_NAMED]
        )
        which = "worst in" if len(lost) > _NAMED else "in"
        yield f"{name} loses to the best peer in {len(lost)} of {len(rows)} rows, {which} {worst}."


def _speed(row: Standing) -> float:
    assert row.speed is not None
    return row.speed.value


def _crossovers(results: ResultSet) -> Iterator[str]:
    batches = {
        network: crossover(results, rates_by_batch(results, network))
        for network in dict.fromkeys(case.network for case in results.cases("training"))
    }
    found = [f"{batch:.0f} ({network})" for network, batch in batches.items() if batch is not None]
    if found:
        yield f"In training, the GPU overtakes the processor at a batch of about {_listed(found)}."


def _accuracy(results: ResultSet) -> Iterator[str]:
    """For each network, who is first at the highest accuracy that anybody reached."""
    reached = [time for time in times_to_accuracy(results) if time.seconds]
    for network, batch in dict.fromkeys((time.network, time.batch) for time in reached):
        here = [time for time in reached if (time.network, time.batch) == (network, batch)]
        target = max(time.target for time in here)
        best = min(
            (time for time in here if time.target == target),
            key=lambda time: float(np.median(time.seconds)),
        )
        seconds = numbers.duration(float(np.median(best.seconds)))
        yield (
            f"{network}, batch {batch}, reaches {target:.0%} on the validation split soonest with "
            f"{best.contender}: {seconds}, {np.median(best.epochs):g} epochs (medians of the "
            f"seeds that did; {best.seeds - len(best.seconds)} of {best.seeds} did not)."
        )


def _missing(results: ResultSet) -> Iterator[str]:
    for row in results.failed:
        yield (
            f"{row.contender} has no time for {row.level} {row.case}: its check failed "
            f"({row.reason})."
        )
    measured = {measurement.contender for measurement in results.measurements.values()}
    reasons = {row.contender: row.reason for row in results.absent if row.contender not in measured}
    if reasons:
        listed = "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
        yield f"Absent altogether: {listed}."


def _cautions(results: ResultSet) -> Iterator[str]:
    if not all(run.complete for run in results.runs):
        yield "The run did not come to its end; rows are missing."
    if results.host.dirty:
        yield "The code had changes that are not in the commit it names."
    passes = [len(measurement.rounds) for measurement in results.measurements.values()]
    single = sum(count == 1 for count in passes)
    if single:
        yield (
            f"{single} of {len(passes)} rows come from a single pass: their intervals cover the "
            "noise within it alone, and are too narrow."
        )
    pairs = sum(count == 2 for count in passes)
    if pairs:
        yield (
            f"{pairs} of {len(passes)} rows come from two passes: so few say little about others, "
            "so their intervals are very wide."
        )
    busy = max(results.host.load_average, default=0.0)
    if busy > results.host.cores + 1:
        yield f"The machine was busy: its load average was up to {busy:.1f}."


def _listed(parts: Sequence[str]) -> str:
    """Join with commas, and "and" before the last."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
