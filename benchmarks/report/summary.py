"""The results in words; each sentence is derived from the figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report import numbers
from benchmarks.report.analysis import (
    MAX_PASS_RATIO,
    Analysis,
    AnalyzedRow,
    TimeToAccuracy,
    crossover,
    rates_by_batch,
    times_to_accuracy,
)
from benchmarks.report.estimator_table import OURS, THEIRS, score_difference
from benchmarks.statistics import CONFIDENCE, MAX_WIDTH, Estimate
from benchmarks.storage.results import ResultSet
from benchmarks.storage.schema import TIMED_LEVELS
from mnist_accel.recipes.models import RECIPES

_MAX_NAMED = 3  # sentences name at most this number of rows
MIN_PROCESSES = 3
_IDLE_LOAD = 0.5  # load average up to which a machine counts as idle


@dataclass(frozen=True)
class Summary:
    """The main results.

    Attributes:
        headline: one sentence.
        recipes: one sentence per recipe.
        findings: one sentence per other result.
        cautions: one sentence per reason to doubt the figures.
    """

    headline: str
    recipes: tuple[str, ...]
    findings: tuple[str, ...]
    cautions: tuple[str, ...]


def summarize(analysis: Analysis) -> Summary:
    """Return the summary of an analysis."""
    findings = (
        *_losses(analysis),
        *_undecided(analysis),
        *_crossovers(analysis.results),
        *_accuracy(analysis.results),
        *_estimators(analysis),
        *_missing(analysis.results),
    )
    return Summary(
        _headline(analysis),
        tuple(_recipes(analysis)),
        findings,
        (*cautions(analysis.results), *_unsteady(analysis)),
    )


def _headline(analysis: Analysis) -> str:
    results = analysis.results
    levels = ("training", "population", "estimator")
    cases = analysis.recipes() or next(filter(None, map(results.cases, levels)), [])
    rows = [row for row in map(analysis.fastest_own, cases) if row is not None]
    ratios = [row.speed.value for row in rows if row.speed is not None]
    undecided = sum(row.is_undecided for row in rows)
    if not rows:
        return "No training of this project was measured."
    if not ratios and undecided:
        return (
            "All ratios to the best baseline are undecided: measure more passes in more processes."
        )
    if not ratios:
        return (
            "No baseline was measured: the figures compare only this project’s backends with each "
            "other."
        )
    wins, losses = sum(row.wins for row in rows), sum(row.loses for row in rows)
    number = f"all {wins}" if 1 < wins == len(ratios) else f"{wins} of {len(ratios)}"
    what = "trainings"
    if analysis.recipes():
        what = "recipes" if len(rows) == len(RECIPES) else f"measured recipes (of {len(RECIPES)})"
    if len(ratios) + undecided < len(rows):
        what += " with a baseline"
    elif undecided:
        what += " with a decided ratio"
    parts = [f"faster than the best baseline in {number} {what}"]
    if losses:
        parts.append(f"slower in {losses}")
    if wins + losses < len(ratios):
        parts.append(f"not significantly different in {len(ratios) - wins - losses}")
    slowest, middle, fastest = (numbers.times(f(ratios)) for f in (min, np.median, max))
    return (
        f"In training, this project’s fastest backend is {_listed(parts)}: "
        f"{slowest} to {fastest} its speed, with a median of {middle}."
    )


def _recipes(analysis: Analysis) -> Iterator[str]:
    for case in analysis.recipes():
        row = analysis.fastest_own(case)
        if row is None:
            continue
        measurement = row.measurement
        rate = numbers.count(measurement.info.images / measurement.round_seconds.median)
        yield f"{case.name}: {measurement.contender} trains {rate} images/s, {_versus(row)}."


def _versus(row: AnalyzedRow) -> str:
    """Compare a row with the best baseline."""
    if row.estimate is None:
        return "without a baseline to compare with"
    if row.speed is None:
        return f"{numbers.undecided(row.estimate)} against {row.baseline}"
    significance = "" if row.wins or row.loses else ", not significant"
    return (
        f"{numbers.times(row.speed.value)} the speed of {row.baseline} "
        f"({numbers.interval(row.speed)}){significance}"
    )


def _losses(analysis: Analysis) -> Iterator[str]:
    for name in analysis.backends():
        rows = analysis.compared(name)
        if not rows:
            continue
        measured = {row.measurement.case.level for row, _ in rows}
        own = (row for row in analysis.rows.values() if row.measurement.contender == name)
        which_rows = "decided rows" if any(row.is_undecided for row in own) else "rows"
        levels = _listed([level for level in TIMED_LEVELS if level in measured])
        total = f"{len(rows)} {which_rows} of {levels}"
        lost = [_loss(row, speed) for row, speed in rows if row.loses]
        within_noise = [(row, speed) for row, speed in rows if row.loses_within_noise]
        text = f"{name} is significantly slower than the best baseline in "
        if lost:
            which = "slowest in" if len(lost) > _MAX_NAMED else "in"
            text += f"{len(lost)} of {total}, {which} {'; '.join(lost[:_MAX_NAMED])}"
        else:
            text += f"none of {total}"
        if within_noise:
            several = len(within_noise) > 1
            number, at_worst = (
                (f"{len(within_noise)} rows", "at worst") if several else ("1 row", "in")
            )
            row, speed = within_noise[0]
            text += (
                f"; in {number} it is slower, but the interval includes 1, {at_worst} "
                f"{_loss(row, speed, f', {numbers.interval(speed)}')}"
            )
        yield f"{text}."


def _undecided(analysis: Analysis) -> Iterator[str]:
    rows = [row for row in analysis.rows.values() if not row.is_baseline]
    undecided = [row for row in rows if row.is_undecided]
    if undecided:
        yield (
            f"{len(undecided)} of {len(rows)} rows of this project are undecided: the interval of "
            f"their ratio is wider than a factor of {MAX_WIDTH:g}. They count in no ranking."
        )


def _loss(row: AnalyzedRow, speed: Estimate, interval: str = "") -> str:
    """Name a row that is slower than the best baseline, with the ratio."""
    return (
        f"{row.measurement.case.level} {row.measurement.case.name} "
        f"({numbers.times(speed.value)} the speed of {row.baseline}{interval})"
    )


def _crossovers(results: ResultSet) -> Iterator[str]:
    batches = {
        network: crossover(results, rates_by_batch(results, network))
        for network in dict.fromkeys(case.network for case in results.cases("training"))
    }
    found = [f"{batch:.0f} ({network})" for network, batch in batches.items() if batch is not None]
    if found:
        yield f"In training, the GPU is faster than the CPU from a batch of {_listed(found)}."


def _accuracy(results: ResultSet) -> Iterator[str]:
    """For each network, name the contender that is first at the highest accuracy reached.

    The contender with the fewest failed seeds is first. Contenders with more failed seeds are named
    if the median of their other seeds is lower.
    """
    reached = [time for time in times_to_accuracy(results) if time.seconds]
    for network, batch in dict.fromkeys((time.network, time.batch) for time in reached):
        same_case = [time for time in reached if (time.network, time.batch) == (network, batch)]
        target = max(time.target for time in same_case)
        times = sorted((time for time in same_case if time.target == target), key=_median_seconds)
        best = min(times, key=lambda time: time.seeds - len(time.seconds))
        text = (
            f"{network}, batch {batch}, reaches {target:.0%} validation accuracy first with "
            f"{best.contender}: {numbers.duration(_median_seconds(best))}, "
            f"{np.median(best.epochs):g} epochs, {_of_seeds(best)}"
        )
        place = times.index(best)
        near = [time for time in times[place + 1 :] if min(time.seconds) <= max(best.seconds)]
        if near:
            names = _listed([time.contender for time in near])
            text += f"; the seeds of {names} overlap, so the order may be chance"
        for time in times[:place]:
            text += (
                f"; {time.contender} needed {numbers.duration(_median_seconds(time))}, "
                f"{_of_seeds(time)}"
            )
        yield f"{text}."


def _estimators(analysis: Analysis) -> Iterator[str]:
    """State how the scores of our estimators differ from those of scikit-learn."""
    found = {}
    for case in analysis.results.cases("estimator"):
        rows = {row.contender: row for row in analysis.results.of_case(case)}
        if OURS in rows and THEIRS in rows:
            found[case.name] = score_difference(rows[OURS], rows[THEIRS])
    compared = {name: one for name, one in found.items() if one is not None}
    if not compared:
        return
    other = [
        f"{name} ({one.difference:+.2f})"
        for name, one in compared.items()
        if one.p_value < 1 - CONFIDENCE
    ]
    by_chance = numbers.digits(len(compared) * (1 - CONFIDENCE))
    yield (
        f"The test scores of {OURS} and {THEIRS} differ significantly in {len(other) or 'none'} of "
        f"{len(compared)} estimators; {by_chance} are expected by chance"
        + (f": {'; '.join(other)}." if other else ".")
    )


def _median_seconds(time: TimeToAccuracy) -> float:
    return float(np.median(time.seconds))


def _of_seeds(time: TimeToAccuracy) -> str:
    """Return which seeds the medians are from, and the range of their times."""
    reached = len(time.seconds)
    which = f"all {time.seeds}" if reached == time.seeds else f"the {reached} of {time.seeds}"
    seeds = f"{which} seeds" + (" that reached it" if reached < time.seeds else "")
    spread = numbers.between(min(time.seconds), max(time.seconds), of_time=True)
    return f"medians of {seeds} ({spread})"


def _missing(results: ResultSet) -> Iterator[str]:
    for row in results.failed:
        yield f"{row.contender} has no time for {row.level} {row.case}: it failed ({row.reason})."
    measured = {measurement.contender for measurement in results.measurements.values()}
    reasons = {row.contender: row.reason for row in results.absent if row.contender not in measured}
    if reasons:
        listed = "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
        yield f"Not measured at all: {listed}."


def cautions(results: ResultSet) -> Iterator[str]:
    """Yield one sentence per reason to doubt all figures of the results."""
    if not all(run.complete for run in results.runs):
        yield "The run is incomplete; rows are missing."
    if any(run.host.dirty for run in results.runs):
        yield "The code had uncommitted changes."
    processes = [
        len({turn.process for turn in measurement.rounds})
        for measurement in results.measurements.values()
    ]
    few = sum(count < MIN_PROCESSES for count in processes)
    if few:
        yield (
            f"{few} of {len(processes)} rows were measured in fewer than {MIN_PROCESSES} "
            "processes, so little is known about the variation between processes."
        )
    loads = results.host.load_average
    # Each file has six values: the loads of the last 1, 5 and 15 minutes at its start and its end.
    at_start = max(loads[:: max(1, len(loads) // len(results.runs))], default=0.0)
    if at_start > _IDLE_LOAD:
        yield (
            f"The machine was not idle when the run started: the load average was {at_start:.1f}."
        )
    highest = max(loads, default=0.0)
    # The suite's own processes cause up to twice the number of cores while they start.
    if highest > 2 * results.host.cores:
        yield f"The machine was busy: the load average was up to {highest:.1f}."


def _unsteady(analysis: Analysis) -> Iterator[str]:
    rows = [row for row in analysis.rows.values() if row.pass_ratio > MAX_PASS_RATIO]
    rows.sort(key=lambda row: row.pass_ratio, reverse=True)
    if rows:
        named = "; ".join(
            f"{row.measurement.case.level} {row.measurement.case.name}, "
            f"{row.measurement.contender} ({numbers.times(row.pass_ratio)})"
            for row in rows[:_MAX_NAMED]
        )
        which = "most in " if len(rows) > _MAX_NAMED else ""
        yield (
            f"Turns differ by more than a factor of {MAX_PASS_RATIO:g} in {len(rows)} of "
            f"{len(analysis.rows)} rows (marked {numbers.UNSTEADY}), {which}{named}."
        )


def _listed(parts: Sequence[str]) -> str:
    """Join with commas, and with "and" before the last part."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
