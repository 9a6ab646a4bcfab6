"""What the measurements mean: who is how much faster, how near the floor, how cost grows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from benchmarks.results import AccuracyRun, Case, Measurement, ResultSet, RowKey
from benchmarks.rivals import best_peer, own
from benchmarks.statistics import Estimate, fitted_exponent, ratio_of_medians

SEED = 0
TARGETS = (0.95, 0.97, 0.99)
FEWEST_SIZES = 3
# How many times as long as the fastest pass of a row its slowest may take before that is said.
UNSTEADY = 2.0
# What names of contenders imply, and no result file says: who keeps compiled code on disk and in
# memory, and spends no time on what lies there.
KEEPS_COMPILED = frozenset({"numba"})
_SIZES = {"batch": "batch", "width": "width", "depth": "depth"}


@dataclass(frozen=True)
class Standing:
    """A measurement beside the others of its case.

    Attributes:
        measurement: the row.
        is_peer: whether it is somebody else's.
        peer: the best peer on the same kind of device, of those that are not for scale alone; None
            where there is none.
        speed: how many times as fast as the best peer; None where there is none.
        floor: seconds of the floor over the median seconds; None where it is not known.
    """

    measurement: Measurement
    is_peer: bool
    peer: str | None
    speed: Estimate | None
    floor: float | None

    @property
    def is_best_peer(self) -> bool:
        """Whether it is what the others are measured against."""
        return self.peer == self.measurement.contender

    @property
    def wins(self) -> bool:
        """Whether it is faster than the best peer beyond noise."""
        return self.speed is not None and self.speed.low > 1

    @property
    def loses(self) -> bool:
        """Whether it is slower than the best peer beyond noise."""
        return self.speed is not None and self.speed.high < 1

    @property
    def is_behind(self) -> bool:
        """Whether it is slower than the best peer, which noise may explain."""
        return self.speed is not None and self.speed.value < 1 <= self.speed.high

    @property
    def unsteadiness(self) -> float:
        """How many times as long as the fastest pass the slowest took, by their medians."""
        passes = [float(np.median(seconds)) for seconds in self.measurement.rounds.values()]
        return max(passes) / min(passes)


@dataclass(frozen=True)
class Growth:
    """How the time of a call grows with a size.

    Attributes:
        sweep: "batch", "width" or "depth".
        network: whose size grows.
        contender: who does the work.
        points: each size with the median seconds of a call.
        exponent: e in time ∝ sizeᵉ.
    """

    sweep: str
    network: str
    contender: str
    points: tuple[tuple[int, float], ...]
    exponent: Estimate


@dataclass(frozen=True)
class TimeToAccuracy:
    """How long a contender trains a network until it is good.

    Attributes:
        network: name of the network.
        batch: images a step.
        contender: who does the work.
        target: validation accuracy.
        seconds: of the seeds that reached it.
        epochs: likewise.
        seeds: number of seeds, those that failed included.
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
    """A result set, and what follows from it."""

    results: ResultSet
    standings: Mapping[RowKey, Standing]
    growth: tuple[Growth, ...]

    def of_case(self, case: Case) -> list[Standing]:
        """Return the rows of a case, the fastest first."""
        rows = (self.standings[one.key] for one in self.results.of_case(case))
        return sorted(rows, key=lambda row: row.measurement.call_seconds.median)

    def fastest_own(self, case: Case) -> Standing | None:
        """Return the row of this project's fastest backend in a case."""
        measurements = own(self.results, case)
        return self.standings[measurements[0].key] if measurements else None

    def recipes(self) -> list[Case]:
        """Return the trainings at the recipes' own settings."""
        return [case for case in self.results.cases("training") if "recipe" in case.sweeps]


def analyse(results: ResultSet) -> Analysis:
    """Draw the conclusions; the same file gives the same figures."""
    rng = np.random.default_rng(SEED)
    standings = {
        key: _standing(results, measurement, rng)
        for key, measurement in results.measurements.items()
    }
    return Analysis(results, standings, tuple(_growth(results, rng)))


def _standing(results: ResultSet, measurement: Measurement, rng: np.random.Generator) -> Standing:
    peer = best_peer(results, measurement)
    speed = None
    if peer is measurement:
        speed = Estimate(1.0, 1.0, 1.0)
    elif peer is not None:
        speed = ratio_of_medians(peer.call_rounds, measurement.call_rounds, rng)
    return Standing(
        measurement,
        results.contenders[measurement.contender].is_peer,
        None if peer is None else peer.contender,
        speed,
        _floor(results, measurement),
    )


def _floor(results: ResultSet, measurement: Measurement) -> float | None:
    """Seconds of the floor over median seconds, where the ceilings of the device are known."""
    ceilings = results.ceilings.get(results.contenders[measurement.contender].device)
    if ceilings is None:
        return None
    seconds = max(
        measurement.flops / ceilings.flops_per_s, measurement.bytes / ceilings.bytes_per_s
    )
    return seconds / measurement.round_seconds.median if seconds else None


def _growth(results: ResultSet, rng: np.random.Generator) -> Iterator[Growth]:
    for sweep, size in _SIZES.items():
        cases = [case for case in results.cases("training") if sweep in case.sweeps]
        for network, grown in groupby(cases, key=lambda case: case.network):
            sizes = {case: getattr(case, size) for case in grown}
            for contender in results.contenders:
                keys = {key: ("training", key.name, contender) for key in sizes}
                rows = [results.measurements[k] for k in keys.values() if k in results.measurements]
                if len({sizes[row.case] for row in rows}) < FEWEST_SIZES:
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


def times_to_accuracy(results: ResultSet) -> list[TimeToAccuracy]:
    """Return, for each network, contender and target, when each seed reached it."""
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
    # Where no seed of anybody reached an accuracy, its rows would say nothing.
    reachable = {(time.network, time.batch, time.target) for time in times if time.seconds}
    return [time for time in times if (time.network, time.batch, time.target) in reachable]


def _reached(run: AccuracyRun, target: float) -> tuple[int, float] | None:
    """The first epoch, from 1, that ended with this accuracy, and the seconds until then."""
    for epoch, (seconds, accuracy) in enumerate(zip(run.seconds, run.accuracy, strict=True), 1):
        if accuracy >= target:
            return epoch, seconds
    return None


def rates_by_batch(results: ResultSet, network: str) -> dict[str, list[tuple[int, float]]]:
    """Return the images per second of each contender in training, by batch size."""
    rates: dict[str, list[tuple[int, float]]] = {}
    for case in results.cases("training"):
        if case.network == network and "batch" in case.sweeps:
            for row in results.of_case(case):
                rate = row.images / row.round_seconds.median
                rates.setdefault(row.contender, []).append((case.batch, rate))
    return {contender: sorted(points) for contender, points in rates.items()}


def crossover(results: ResultSet, rates: Mapping[str, Sequence[tuple[int, float]]]) -> float | None:
    """Return the batch size from which the fastest GPU row beats the fastest of the processor.

    It is sought between the measured sizes on straight lines of the logarithms. None where there
    is no GPU, or where one of the two is ahead throughout.
    """
    best: dict[bool, dict[int, float]] = {True: {}, False: {}}
    for contender, points in rates.items():
        side = best[contender in results.on_gpu]
        for batch, rate in points:
            side[batch] = max(rate, side.get(batch, 0.0))
    batches = sorted(best[True].keys() & best[False].keys())
    lead = [float(np.log(best[True][batch] / best[False][batch])) for batch in batches]
    for index in range(1, len(batches)):
        before, after = lead[index - 1], lead[index]
        if before < 0 <= after:
            share = before / (before - after)
            logs = np.log(batches[index - 1 : index + 1])
            return float(np.exp(logs[0] + share * (logs[1] - logs[0])))
    return None
