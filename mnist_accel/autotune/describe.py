"""Describe measurements as text for users."""

from collections.abc import Mapping

from mnist_accel.autotune.measure import Candidate
from mnist_accel.console.formats import format_throughput

MAX_SHOWN = 3


def describe_measurements(images_per_s: Mapping[Candidate, float], winner: Candidate) -> str:
    """Return the winner and up to two others with their images per second.

    If several backends were measured, the text shows the fastest candidate of each backend,
    otherwise the fastest candidates: "numba 410 k images/s with 2 threads, numpy 160 k with 1".
    """
    others = [candidate for candidate in images_per_s if candidate != winner]
    shown = [winner, *sorted(others, key=lambda c: images_per_s[c], reverse=True)]
    several_backends = len({candidate.backend for candidate in shown}) > 1
    if several_backends:
        best = {candidate.backend: candidate for candidate in reversed(shown)}
        shown = [candidate for candidate in shown if best[candidate.backend] == candidate]
    unit = " thread" if winner.threads == 1 else " threads"
    pace = format_throughput(images_per_s[winner])
    parts = [f"{winner.backend} {pace} images/s{_with_threads(winner, unit)}"]
    for candidate in shown[1:MAX_SHOWN]:
        name = f"{candidate.backend} " if several_backends else ""
        pace = format_throughput(images_per_s[candidate])
        parts.append(f"{name}{pace}{_with_threads(candidate)}")
    return ", ".join(parts)


def _with_threads(candidate: Candidate, unit: str = "") -> str:
    """Return " with N" and the unit, or nothing if the candidate has no number of threads."""
    return "" if candidate.threads is None else f" with {candidate.threads}{unit}"
