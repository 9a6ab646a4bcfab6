"""The results in words; every word of it follows from the figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report import numbers
from benchmarks.report.analysis import (
    UNSTEADY,
    Analysis,
    Standing,
    TimeToAccuracy,
    crossover,
    rates_by_batch,
    times_to_accuracy,
)
from benchmarks.results import TIMED_LEVELS, ResultSet
from mnist_accel.recipes.models import RECIPES

_NAMED = 3  # how many of a longer list are named
_IDLE = 0.5  # cores that may be busy with something else before that is said


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
        (*_cautions(analysis.results), *_unsteady(analysis)),
    )


def _headline(analysis: Analysis) -> str:
    cases = analysis.recipes() or analysis.results.cases("training")
    rows = [row for row in map(analysis.fastest_own, cases) if row is not None]
    compared = [row for row in rows if row.speed is not None]
    if not rows:
        return "No training of this project was measured."
    if not compared:
        return (
            "There is no peer to compare with: the figures compare this project’s backends with "
            "each other."
        )
    wins = sum(row.wins for row in compared)
    losses = sum(row.loses for row in compared)
    ratios = [row.speed.value for row in compared if row.speed]
    share = f"all {wins}" if 1 < wins == len(compared) else f"{wins} of {len(compared)}"
    what = f"recipes measured (of {len(RECIPES)})" if analysis.recipes() else "trainings"
    if len(compared) < len(rows):
        what += " that have one"
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
        measured = {row.measurement.case.level for row in rows}
        total = f"{len(rows)} rows of {_listed([one for one in TIMED_LEVELS if one in measured])}"
        lost = sorted((row for row in rows if row.loses), key=_speed)
        behind = sorted((row for row in rows if row.is_behind), key=_speed)
        text = f"{name} loses nowhere beyond noise, in {total}"
        if lost:
            which = "worst in" if len(lost) > _NAMED else "in"
            text = f"{name} loses to the best peer in {len(lost)} of {total}, {which} "
            text += "; ".join(_loss(row) for row in lost[:_NAMED])
        if behind:
            many = len(behind) > 1
            text += (
                f"; undecided, with an interval that includes 1, {'are' if many else 'is'} "
                f"{len(behind)} {'rows' if many else 'row'} where it is slower"
                f"{', the worst' if many else ':'} {_loss(behind[0], with_interval=True)}"
            )
        yield f"{text}."


def _loss(row: Standing, *, with_interval: bool = False) -> str:
    """Name a row that is slower than the best peer, and say by how much."""
    assert row.speed is not None
    interval = f", {numbers.interval(row.speed)}" if with_interval else ""
    return (
        f"{row.measurement.case.level} {row.measurement.case.name} "
        f"({numbers.times(row.speed.value)} the speed of {row.peer}{interval})"
    )


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
    """For each network, who is first at the highest accuracy that anybody reached.

    To reach it at times is not to reach it: whoever failed with fewer seeds goes first, and those
    who failed with more are named where they were sooner.
    """
    reached = [time for time in times_to_accuracy(results) if time.seconds]
    for network, batch in dict.fromkeys((time.network, time.batch) for time in reached):
        here = [time for time in reached if (time.network, time.batch) == (network, batch)]
        target = max(time.target for time in here)
        here = sorted((time for time in here if time.target == target), key=_median_seconds)
        best = min(here, key=lambda time: time.seeds - len(time.seconds))
        text = (
            f"{network}, batch {batch}, reaches {target:.0%} on the validation split soonest with "
            f"{best.contender}: {numbers.duration(_median_seconds(best))}, "
            f"{np.median(best.epochs):g} epochs, {_of_seeds(best)}"
        )
        place = here.index(best)
        near = [time for time in here[place + 1 :] if min(time.seconds) <= max(best.seconds)]
        if near:
            names = _listed([time.contender for time in near])
            text += f"; seeds of {names} were as fast, so chance may have decided"
        for time in here[:place]:
            text += (
                f"; {time.contender} needed {numbers.duration(_median_seconds(time))}, "
                f"{_of_seeds(time)}"
            )
        yield f"{text}."


def _median_seconds(time: TimeToAccuracy) -> float:
    return float(np.median(time.seconds))


def _of_seeds(time: TimeToAccuracy) -> str:
    """What a median of seconds stands for: of how many seeds, and how far they spread."""
    reached = len(time.seconds)
    which = f"all {time.seeds}" if reached == time.seeds else f"the {reached} of {time.seeds}"
    seeds = f"{which} seeds" + (" that did" if reached < time.seeds else "")
    spread = numbers.between(min(time.seconds), max(time.seconds), of_time=True)
    return f"medians of {seeds} ({spread})"


def _missing(results: ResultSet) -> Iterator[str]:
    for row in results.failed:
        yield (f"{row.contender} has no time for {row.level} {row.case}: it failed ({row.reason}).")
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
    loads = results.host.load_average
    # Each file brings those of its start, the last minute's first, and those of its end.
    at_start = max(loads[:: max(1, len(loads) // len(results.runs))], default=0.0)
    if at_start > _IDLE:
        yield (
            f"The machine was not idle when the measuring began: the load average was "
            f"{at_start:.1f}."
        )
    busy = max(loads, default=0.0)
    if busy > results.host.cores + 1:
        yield f"The machine was busy: its load average was up to {busy:.1f}."


def _unsteady(analysis: Analysis) -> Iterator[str]:
    rows = [row for row in analysis.standings.values() if row.unsteadiness > UNSTEADY]
    rows.sort(key=lambda row: row.unsteadiness, reverse=True)
    if rows:
        named = "; ".join(
            f"{row.measurement.case.level} {row.measurement.case.name}, "
            f"{row.measurement.contender} ({numbers.times(row.unsteadiness)})"
            for row in rows[:_NAMED]
        )
        which = "most in " if len(rows) > _NAMED else ""
        yield (
            f"Passes differ by more than a factor of {UNSTEADY:g} in {len(rows)} of "
            f"{len(analysis.standings)} rows (marked {numbers.UNSTEADY}), {which}{named}."
        )


def _listed(parts: Sequence[str]) -> str:
    """Join with commas, and "and" before the last."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
