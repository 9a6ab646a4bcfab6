"""Formats figures with three significant digits and a suitable unit."""

from collections.abc import Sequence

from benchmarks.statistics import Estimate

NO_FIGURE = "–"
UNSTEADY = "†"  # marks a row whose passes differ
CACHED = "¹"  # marks a row whose code was in the cache on disk
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_COUNTS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_BYTES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))


def digits(value: float) -> str:
    """Return three significant digits, and all digits before the decimal point."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    for limit, decimals in ((100, 0), (10, 1), (1, 2), (0.1, 3)):
        if abs(rounded) >= limit:
            return f"{rounded:.{decimals}f}"
    return f"{rounded:g}"


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """Return the largest unit that is not larger than the value."""
    rounded = float(f"{value:.3g}")  # 999.9 k is 1.00 M
    return next((unit for unit in units if rounded >= unit[0]), units[-1])


def _with_unit(value: float, units: Sequence[tuple[float, str]]) -> str:
    if value == 0:
        return "0"
    size, unit = _scaled(value, units)
    return f"{digits(value / size)} {unit}".rstrip()


def duration(seconds: float) -> str:
    """Format seconds: 1.23 s, 45.1 ms."""
    return _with_unit(seconds, _SECONDS)


def count(value: float) -> str:
    """Format a count or a rate without a unit: 812 k."""
    return _with_unit(value, _COUNTS)


def size(value: float | None) -> str:
    """Format bytes: 210 MiB."""
    return NO_FIGURE if value is None else _with_unit(value, _BYTES)


def between(low: float, high: float, *, of_time: bool) -> str:
    """Format a range in the unit of its upper end: 790–830 k."""
    units = _SECONDS if of_time else _COUNTS
    scale, unit = _scaled(high, units)
    return f"{digits(low / scale)}–{digits(high / scale)} {unit}".rstrip()


def times(ratio: float) -> str:
    """Format a ratio: 2.41×."""
    return f"{digits(ratio)}×"


def ratio(estimate: Estimate | None) -> str:
    """Format a ratio with its interval: 2.41× (2.20–2.60); or state that it is undecided."""
    if estimate is None:
        return NO_FIGURE
    if not estimate.is_decided:
        return undecided(estimate)
    return f"{times(estimate.value)} ({interval(estimate)})"


def undecided(estimate: Estimate) -> str:
    """Return the text in place of a ratio whose interval is too wide."""
    return f"undecided (n = {estimate.n})"


def interval(estimate: Estimate) -> str:
    """Format an interval: 2.20–2.60."""
    return f"{digits(estimate.low)}–{digits(estimate.high)}"


def percent(fraction: float | None) -> str:
    """Format a fraction in percent: 65 %, 1.9 %."""
    if fraction is None:
        return NO_FIGURE
    return f"{100 * fraction:.{0 if fraction >= 0.0995 else 1}f} %"


def round_count(value: float) -> str:
    """Format a round number on an axis: 1 M."""
    return _round(value, _COUNTS)


def round_duration(seconds: float) -> str:
    """Format a round time on an axis: 100 ms."""
    return _round(seconds, _SECONDS)


def _round(value: float, units: Sequence[tuple[float, str]]) -> str:
    size, unit = _scaled(value, units)
    return f"{float(f'{value / size:.3g}'):g} {unit}".rstrip()
