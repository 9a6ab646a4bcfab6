"""Analyzes results: speed relative to the best baseline, roofline fraction, growth with size."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from benchmarks.statistics import Estimate, fitted_exponent, paired_ratio
from benchmarks.storage.results import Measurement, ResultSet
from benchmarks.storage.schema import AccuracyRun, Case, RowKey, Sweep

SEED = 0
# Shown for scale: textbook loops, which are not used in practice, and the networks of a population
# one after the other on our own backend. No row is compared with them.
NOT_COMPARED = frozenset({"loops", "numba-one-thread", "numba-in-turn"})
TARGETS = (0.95, 0.97, 0.99)
MIN_SIZES = 3  # a growth exponent is fitted to at least this many sizes
# The report marks a row if the medians of its slowest and fastest turn have a larger ratio.
MAX_PASS_RATIO = 2.0
# Contenders that cache compiled code on disk. Result files do not contain this fact.
CACHES_COMPILED = frozenset({"numba"})


@dataclass(frozen=True)
class AnalyzedRow:
    """A measurement, compared with the best baseline and the roofline.

    Attributes:
        measurement: the measurement.
        is_baseline: whether its contender is a baseline.
        baseline: the fastest baseline on the same kind of device; None if there is none.
        estimate: its speed divided by the speed of the best baseline; None if there is no
            baseline, or none that was measured in the same passes.
        roofline_fraction: time that the roofline model predicts, divided by the median time; None
            if the ceilings of the device are unknown.
    """

    measurement: Measurement
    is_baseline: bool
    baseline: str | None
    estimate: Estimate | None
    roofline_fraction: float | None

    @property
    def speed(self) -> Estimate | None:
        """The estimate if it is decided; rankings and counts use only this."""
        return self.estimate if self.estimate is not None and self.estimate.is_decided else None

    @property
    def is_undecided(self) -> bool:
        """Whether the interval of the estimate is too wide for a result."""
        return self.estimate is not None and not self.estimate.is_decided

    @property
    def is_best_baseline(self) -> bool:
        """Whether its contender is the best baseline of the case on this kind of device."""
        return self.baseline == self.measurement.contender

    @property
    def wins(self) -> bool:
        """Whether the row is significantly faster than the best baseline."""
        return self.speed is not None and self.speed.low > 1

    @property
    def loses(self) -> bool:
        """Whether the row is significantly slower than the best baseline."""
        return self.speed is not None and self.speed.high < 1

    @property
    def loses_within_noise(self) -> bool:
        """Whether the row is slower than the best baseline, but not significantly."""
        return self.speed is not None and self.speed.value < 1 <= self.speed.high

    @property
    def pass_ratio(self) -> float:
        """Median of the slowest turn divided by the median of the fastest turn."""
        passes = [float(np.median(seconds)) for seconds in self.measurement.rounds.values()]
        return max(passes) / min(passes)


@dataclass(frozen=True)
class Growth:
    """How the time per call of one contender grows with one size of a network.

    Attributes:
        sweep: the size that varies: "batch", "width", "depth" or "members".
        points: each size with the median seconds per call.
        exponent: e in time ∝ sizeᵉ.
    """

    sweep: str
    network: str
    contender: str
    points: tuple[tuple[int, float], ...]
    exponent: Estimate | None


@dataclass(frozen=True)
class TimeToAccuracy:
    """How long a contender trains a network until it reaches a validation accuracy.

    Attributes:
        batch: images per step.
        target: validation accuracy.
        seconds: training time of each seed that reached the target.
        epochs: number of epochs of each seed that reached the target.
        seeds: number of seeds that trained for this target or a higher one.
    """

    network: str
    batch: int
    contender: str
    target: float
    seconds: tuple[float, ...]
    epochs: tuple[int, ...]
    seeds: int


@dataclass(frozen=True)
class Analysis:
    """Results and their analysis."""

    results: ResultSet
    rows: Mapping[RowKey, AnalyzedRow]
    growth: tuple[Growth, ...]

    def of_case(self, case: Case) -> list[AnalyzedRow]:
        """Return the rows of a case, the fastest first."""
        rows = (self.rows[one.key] for one in self.results.of_case(case))
        return sorted(rows, key=lambda row: row.measurement.call_seconds.median)

    def fastest_own(self, case: Case) -> AnalyzedRow | None:
        """Return the row of this project's fastest backend in a case."""
        return next((row for row in self.of_case(case) if not row.is_baseline), None)

    def divide(self, cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
        """Return the cases to publish, and those in which our fastest ratio is undecided."""
        rows = {case: self.fastest_own(case) for case in cases}
        undecided = [case for case, row in rows.items() if row is not None and row.is_undecided]
        return [case for case in cases if case not in undecided], undecided

    def backends(self) -> list[str]:
        """Return the names of this project's backends."""
        contenders = self.results.contenders.items()
        return [name for name, contender in contenders if not contender.is_baseline]

    def compared(self, contender: str) -> list[tuple[AnalyzedRow, Estimate]]:
        """Return the rows of a contender that have a baseline, with their speed, slowest first."""
        rows = (row for row in self.rows.values() if row.measurement.contender == contender)
        pairs = [(row, row.speed) for row in rows if row.speed is not None]
        return sorted(pairs, key=lambda pair: pair[1].value)

    def recipes(self) -> list[Case]:
        """Return the training cases with the sizes of the recipes."""
        return self.cases_with("recipe")

    def cases_with(self, sweep: Sweep) -> list[Case]:
        """Return the training cases of a series."""
        return [case for case in self.results.cases("training") if sweep in case.sweeps]


def analyze(results: ResultSet) -> Analysis:
    """Return the analysis of results. The bootstrap has a fixed seed, so it is deterministic."""
    rng = np.random.default_rng(SEED)
    rows = {
        key: _analyze_row(results, measurement, rng)
        for key, measurement in results.measurements.items()
    }
    return Analysis(results, rows, tuple(_growth(results, rng)))


def undecided_cases(analysis: Analysis) -> list[tuple[str, str]]:
    """Return level and name of the cases in which a backend has an undecided ratio."""
    cases = (row.measurement.case for row in analysis.rows.values() if _is_own_undecided(row))
    return list(dict.fromkeys((case.level, case.name) for case in cases))


def _is_own_undecided(row: AnalyzedRow) -> bool:
    return row.is_undecided and not row.is_baseline


def _analyze_row(
    results: ResultSet, measurement: Measurement, rng: np.random.Generator
) -> AnalyzedRow:
    baseline = best_baseline(results, measurement)
    estimate = None
    if baseline is measurement:
        estimate = Estimate(1.0, 1.0, 1.0)
    elif baseline is not None:
        estimate = paired_ratio(baseline.call_rounds, measurement.call_rounds, rng)
    return AnalyzedRow(
        measurement,
        results.contenders[measurement.contender].is_baseline,
        None if baseline is None else baseline.contender,
        estimate,
        _roofline_fraction(results, measurement),
    )


def best_baseline(
    results: ResultSet, measurement: Measurement, among: Container[str] | None = None
) -> Measurement | None:
    """Return the fastest baseline in the case of a measurement, on the same kind of device.

    CPU rows are compared with CPU rows, and GPU rows with GPU rows, because a GPU is no alternative
    on a machine without one. If the measurement is the fastest baseline, it is returned.
    `among` contains the names of the baselines to choose from; None means all.
    """
    on_gpu = measurement.contender in results.on_gpu
    baselines = [
        baseline
        for baseline in results.of_case(measurement.case)
        if results.contenders[baseline.contender].is_baseline
        and baseline.contender not in NOT_COMPARED
        and (among is None or baseline.contender in among)
        and (baseline.contender in results.on_gpu) == on_gpu
    ]
    return min(baselines, key=lambda baseline: baseline.call_seconds.median, default=None)


def _roofline_fraction(results: ResultSet, measurement: Measurement) -> float | None:
    """Return the predicted time divided by the median time; None if no ceilings are known."""
    ceilings = results.ceilings.get(results.contenders[measurement.contender].device)
    if ceilings is None:
        return None
    seconds = max(
        measurement.info.flops / ceilings.flops_per_s, measurement.info.bytes / ceilings.bytes_per_s
    )
    return seconds / measurement.round_seconds.median if seconds else None


def _growth(results: ResultSet, rng: np.random.Generator) -> Iterator[Growth]:
    for sweep in ("batch", "width", "depth", "members"):
        level = "population" if sweep == "members" else "training"
        cases = [case for case in results.cases(level) if sweep in case.sweeps]
        for network, grown in groupby(cases, key=_network_of(sweep)):
            sizes = {case: getattr(case, sweep) for case in grown}
            for contender in results.contenders:
                keys = [(level, case.name, contender) for case in sizes]
                rows = [results.measurements[key] for key in keys if key in results.measurements]
                if len({sizes[row.case] for row in rows}) < MIN_SIZES:
                    continue
                rows.sort(key=lambda row: sizes[row.case])
                yield Growth(
                    sweep,
                    network,
                    contender,
                    tuple((sizes[row.case], row.call_seconds.median) for row in rows),
                    fitted_exponent(
                        [sizes[row.case] for row in rows], [row.call_rounds for row in rows], rng
                    ),
                )


def _network_of(sweep: str) -> Callable[[Case], str]:
    """Return the function that names what grows; only populations have several batch sizes."""
    if sweep == "members":
        return lambda case: f"{case.network}, batch {case.batch}"
    return lambda case: case.network


def times_to_accuracy(results: ResultSet) -> list[TimeToAccuracy]:
    """Return the times to each target for each network, batch size and contender."""
    runs: dict[tuple[str, int, str], list[AccuracyRun]] = {}
    for run in results.accuracy:
        runs.setdefault((run.network, run.batch, run.contender), []).append(run)
    times = []
    for (network, batch, contender), trained in runs.items():
        for target in TARGETS:
            seeds = [run for run in trained if run.target >= target]
            reached = [when for when in (_reached(run, target) for run in seeds) if when]
            times.append(
                TimeToAccuracy(
                    network,
                    batch,
                    contender,
                    target,
                    tuple(seconds for _, seconds in reached),
                    tuple(epoch for epoch, _ in reached),
                    len(seeds),
                )
            )
    # Leave out targets that no seed of any contender reached.
    reachable = {(time.network, time.batch, time.target) for time in times if time.seconds}
    return [time for time in times if (time.network, time.batch, time.target) in reachable]


def _reached(run: AccuracyRun, target: float) -> tuple[int, float] | None:
    """Return the first epoch that reached the target, counted from 1, and the seconds to its end.

    None if no epoch reached it.
    """
    for epoch, (seconds, accuracy) in enumerate(zip(run.seconds, run.accuracy, strict=True), 1):
        if accuracy >= target:
            return epoch, seconds
    return None


def rates_by_batch(results: ResultSet, network: str) -> dict[str, list[tuple[int, float]]]:
    """Return the training speed of each contender: (batch size, images per second), by size."""
    rates: dict[str, list[tuple[int, float]]] = {}
    for case in results.cases("training"):
        if case.network == network and "batch" in case.sweeps:
            for row in results.of_case(case):
                rate = row.info.images / row.round_seconds.median
                rates.setdefault(row.contender, []).append((case.batch, rate))
    return {contender: sorted(points) for contender, points in rates.items()}


def crossover(results: ResultSet, rates: Mapping[str, Sequence[tuple[int, float]]]) -> float | None:
    """Return the batch size from which the fastest GPU row is faster than the fastest CPU row.

    The logarithm of the ratio of both speeds is interpolated linearly in the logarithm of the
    batch size. None if the GPU does not become faster between two measured sizes.
    """
    best: dict[bool, dict[int, float]] = {True: {}, False: {}}
    for contender, points in rates.items():
        fastest = best[contender in results.on_gpu]
        for batch, rate in points:
            fastest[batch] = max(rate, fastest.get(batch, 0.0))
    batches = sorted(best[True].keys() & best[False].keys())
    lead = [float(np.log(best[True][batch] / best[False][batch])) for batch in batches]
    for index in range(1, len(batches)):
        before, after = lead[index - 1], lead[index]
        if before < 0 <= after:
            fraction = before / (before - after)
            logs = np.log(batches[index - 1 : index + 1])
            return float(np.exp(logs[0] + fraction * (logs[1] - logs[0])))
    return None
