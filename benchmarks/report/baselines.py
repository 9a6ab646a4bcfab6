"""Which measurement a contender is compared with."""

from collections.abc import Container

from benchmarks.storage.results import Measurement, ResultSet
from benchmarks.storage.schema import Case

# Textbook loops are shown for scale. Nobody would use them in practice, so they are no baseline.
NOT_COMPARED = frozenset({"loops"})


def best_baseline(
    results: ResultSet, measurement: Measurement, among: Container[str] | None = None
) -> Measurement | None:
    """Return the fastest baseline in the case of a measurement, on the same kind of device.

    CPU rows are compared with CPU rows, and GPU rows with GPU rows, because a GPU is no alternative
    on a machine without one. Baselines are compared in the same way; the fastest one with itself.

    Args:
        results: the results that contain the measurement.
        measurement: of a backend or a baseline.
        among: names of the baselines to choose from; all if None.
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


def own(results: ResultSet, case: Case) -> list[Measurement]:
    """Return this project's measurements of a case, the fastest first."""
    measurements = (
        measurement
        for measurement in results.of_case(case)
        if not results.contenders[measurement.contender].is_baseline
    )
    return sorted(measurements, key=lambda measurement: measurement.call_seconds.median)
