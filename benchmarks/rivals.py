"""Whom to compare a contender with."""

from collections.abc import Container

from benchmarks.results import Case, Measurement, ResultSet

# Nobody would use a textbook's loops in earnest, so nobody is measured against them.
FOR_SCALE = frozenset({"loops"})


def best_peer(
    results: ResultSet, measurement: Measurement, among: Container[str] | None = None
) -> Measurement | None:
    """Return the fastest peer in the case of a measurement, on the same kind of device.

    A GPU is not what somebody without one would pick instead; so processors are compared with
    processors. A peer itself is compared like everybody else, and may be its own best peer.

    Args:
        results: the run.
        measurement: of anybody.
        among: names of the peers to choose from; all if None.
    """
    on_gpu = measurement.contender in results.on_gpu
    peers = [
        peer
        for peer in results.of_case(measurement.case)
        if results.contenders[peer.contender].is_peer
        and peer.contender not in FOR_SCALE
        and (among is None or peer.contender in among)
        and (peer.contender in results.on_gpu) == on_gpu
    ]
    return min(peers, key=lambda peer: peer.call_seconds.median, default=None)


def own(results: ResultSet, case: Case) -> list[Measurement]:
    """Return this project's measurements of a case, the fastest first."""
    measurements = (
        measurement
        for measurement in results.of_case(case)
        if not results.contenders[measurement.contender].is_peer
    )
    return sorted(measurements, key=lambda measurement: measurement.call_seconds.median)
