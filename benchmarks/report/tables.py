"""The tables of measurements, as data that both Markdown and HTML are made of."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from benchmarks.report import numbers
from benchmarks.report.analysis import (
    CACHES_COMPILED,
    MAX_PASS_RATIO,
    NOT_COMPARED,
    Analysis,
    AnalyzedRow,
    times_to_accuracy,
)
from benchmarks.statistics import Estimate
from benchmarks.storage.results import Measurement, ResultSet
from benchmarks.storage.schema import PHASES, Case, Missing


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: its content.
        strong: whether it is set in bold.
        share: length of the bar in it, 0…1; None for no bar.
        span: number of columns that it fills.
        kind: "baseline", "scale", "name", "missing" or "failed" for a style; empty for none.
    """

    text: str
    strong: bool = False
    share: float | None = None
    span: int = 1
    kind: str = ""


@dataclass(frozen=True)
class Group:
    """Rows under a common heading."""

    heading: str
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Table:
    """A table as `make_table` returns it; `numeric` states which columns contain figures."""

    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    numeric: tuple[bool, ...]
    heading: str = ""
    notes: tuple[str, ...] = ()


Row: TypeAlias = Sequence[Cell | str]


def make_table(
    columns: Sequence[str],
    groups: Mapping[str, Iterable[Row]],
    *,
    texts: Iterable[int] = (),
    heading: str = "",
    notes: Iterable[str] = (),
) -> Table:
    """Return a table.

    Args:
        columns: headings of the columns.
        groups: rows by the heading of their group; groups without rows are omitted.
        texts: columns that contain text; the first column always does.
        heading: what the headings of the groups name, such as "case"; empty without headings.
        notes: sentences below the table.
    """
    text_columns = {0, *texts}
    numeric = tuple(index not in text_columns for index in range(len(columns)))
    made = (Group(name, tuple(_cells(row) for row in rows)) for name, rows in groups.items())
    kept = tuple(group for group in made if group.rows)
    return Table(tuple(columns), kept, numeric, heading, tuple(notes))


def _cells(row: Row) -> tuple[Cell, ...]:
    return tuple(Cell(cell) if isinstance(cell, str) else cell for cell in row)


def contender_cell(results: ResultSet, name: str, *, strong: bool = False) -> Cell:
    """Return the cell with the name of a contender."""
    return Cell(name, strong=strong, kind=contender_kind(results, name))


def contender_kind(results: ResultSet, name: str) -> str:
    """Return "scale", "baseline", or the empty string for a backend of this project."""
    if name in NOT_COMPARED:
        return "scale"
    return "baseline" if results.contenders[name].is_baseline else ""


_PER_CALL = {"training": "step", "inference": "call", "operations": "call", "start": "start",
             "population": "step of all", "estimator": "fit"}  # fmt: skip
_WITHOUT_IMAGES = ("operations", "start", "estimator")
_OPERATIONS_NOTE = (
    "A single operation of numba takes 2 to 5 µs before it computes, and a second thread starts "
    "after 40 to 60 µs. So the smallest rows can be slower than a baseline, and a second thread "
    "saves little of a convolution of 64 images. Compiled trainings and predictions call no single "
    "operations."
)

_SLOWER_NOTE = (
    "Reasons: in a cold start, numba compiles its kernels for seconds. Large matrix products, such "
    "as those of 2048 units or of thousands of images, are the strength of the BLAS libraries that "
    "PyTorch calls; the kernels of numba are made for small ones. The reason for single operations "
    "is stated below their table."
)


def case_table(analysis: Analysis, cases: Sequence[Case], *, with_absent: bool) -> Table:
    """Return the table of the measurements of some cases.

    Args:
        analysis: analysis of the results.
        cases: one or more cases of the same level.
        with_absent: whether contenders without any time have rows, too. A contender that lacks
            single cases is listed in `missing_table` only.
    """
    level = cases[0].level
    rates = () if level in _WITHOUT_IMAGES else ("images/s", "p10–p90")
    columns: tuple[str, ...] = (
        "", "× best baseline", "95 % interval", *rates, f"time per {_PER_CALL[level]}", "p10–p90",
        "n", "of roofline", "check",
    )  # fmt: skip
    measured = {measurement.contender for measurement in analysis.results.measurements.values()}
    absent = [
        row for row in analysis.results.absent if with_absent and row.contender not in measured
    ]
    groups = {}
    for case in cases:
        analyzed = analysis.of_case(case)
        fastest = analyzed[0].measurement.call_seconds.median if analyzed else 0.0
        rows: list[Row] = [_case_row(analysis.results, row, fastest) for row in analyzed]
        for missing, label, kind in (
            (analysis.results.failed, "failed", "failed"),
            (absent, "absent", "missing"),
        ):
            rows += [
                (row.contender, Cell(f"{label}: {row.reason}", span=len(columns) - 1, kind=kind))
                for row in missing
                if (row.level, row.case) == (case.level, case.name)
            ]
        groups[case.name] = rows
    notes = [_OPERATIONS_NOTE] if level == "operations" else []
    if any(row.pass_ratio > MAX_PASS_RATIO for case in cases for row in analysis.of_case(case)):
        notes.append(
            f"{numbers.UNSTEADY} The medians of the slowest and the fastest turn differ by more "
            f"than a factor of {MAX_PASS_RATIO:g}."
        )
    return make_table(columns, groups, heading="case", notes=notes)


def _case_row(results: ResultSet, row: AnalyzedRow, fastest: float) -> Row:
    measurement, speed = row.measurement, row.estimate
    seconds = measurement.call_seconds
    best = seconds.median == fastest
    ratio, interval = numbers.NO_FIGURE, numbers.NO_FIGURE
    if row.is_best_baseline:
        ratio, interval = numbers.times(1.0), "best baseline"
    elif speed is not None and speed.is_decided:
        ratio, interval = numbers.times(speed.value), numbers.interval(speed)
    elif speed is not None:
        ratio, interval = "undecided", f"n = {speed.n} passes"
    cells: list[Cell | str] = [
        contender_cell(results, measurement.contender, strong=best),
        # The most important figure comes first: a phone shows only the left columns.
        Cell(ratio, strong=row.wins),
        interval,
    ]
    share: float | None = fastest / seconds.median
    if measurement.case.level not in _WITHOUT_IMAGES:
        epoch, images = measurement.round_seconds, measurement.info.images
        cells += [
            Cell(numbers.count(images / epoch.median), strong=best, share=share),
            numbers.between(images / epoch.p90, images / epoch.p10, of_time=False),
        ]
        share = None
    unsteady = f" {numbers.UNSTEADY}" if row.pass_ratio > MAX_PASS_RATIO else ""
    return (
        *cells,
        Cell(numbers.duration(seconds.median), share=share),
        numbers.between(seconds.p10, seconds.p90, of_time=True),
        f"{seconds.n}{unsteady}",
        numbers.percent(row.roofline_fraction),
        f"{measurement.info.check.difference:.0e}",
    )


def losses_tables(analysis: Analysis) -> dict[str, Table]:
    """Return, for each backend, the table of rows that are slower than the best baseline."""
    losses = {}
    for name in analysis.backends():
        rows = [
            (
                row.measurement.case.name,
                numbers.times(speed.value),
                numbers.interval(speed),
                Cell(row.baseline or "", kind="name"),
                row.measurement.case.level,
            )
            for row, speed in analysis.compared(name)
            if row.loses
        ]
        if rows:
            columns = ("case", "× best baseline", "95 % interval", "best baseline", "level")
            notes = (_SLOWER_NOTE,) if name == "numba" else ()
            losses[name] = make_table(columns, {"": rows}, texts=(3, 4), notes=notes)
    return losses


def growth_table(analysis: Analysis) -> Table:
    """Return the table of the fitted exponents."""
    groups: dict[str, list[Row]] = {}
    for growth in analysis.growth:
        sizes = [size for size, _ in growth.points]
        groups.setdefault(f"{growth.network}, {growth.sweep}", []).append(
            (
                contender_cell(analysis.results, growth.contender),
                "–" if growth.exponent is None else f"{growth.exponent.value:.2f}",
                _exponents(growth.exponent),
                f"{min(sizes)}–{max(sizes)}",
                str(len(sizes)),
            )
        )
    columns = ("", "exponent", "95 % interval", "sizes", "n")
    return make_table(columns, groups, heading="network, size")


def _exponents(exponent: Estimate | None) -> str:
    if exponent is None or not math.isfinite(exponent.high):
        return numbers.NO_FIGURE
    return f"{exponent.low:.2f} to {exponent.high:.2f}"


def phases_table(analysis: Analysis) -> Table:
    """Return the table of the seconds of each phase and of a steady epoch, for the recipes."""
    groups: dict[str, list[Row]] = {
        case.name: [
            (
                contender_cell(analysis.results, row.measurement.contender),
                *(_phase(row.measurement, phase) for phase in PHASES),
                numbers.duration(row.measurement.round_seconds.median),
            )
            for row in analysis.of_case(case)
        ]
        for case in analysis.recipes()
    }
    columns = ("", *(phase.replace("_", " ") for phase in PHASES), "steady epoch")
    return make_table(columns, groups, heading="case", notes=_phase_notes(analysis))


def _phase(row: Measurement, phase: str) -> str:
    seconds = row.phases_s.get(phase)
    if phase == "compile" and _was_cached(row):
        return numbers.NO_FIGURE + numbers.CACHED
    return numbers.NO_FIGURE if seconds is None else numbers.duration(seconds)


def _was_cached(row: Measurement) -> bool:
    """Whether the contender loaded its compiled code from a cache on disk."""
    return row.contender in CACHES_COMPILED and not row.phases_s.get("compile")


def _phase_notes(analysis: Analysis) -> Iterator[str]:
    rows = [row for case in analysis.recipes() for row in analysis.results.of_case(case)]
    varying = any(len({tuple(p.items()) for p in row.phases.values()}) > 1 for row in rows)
    yield (
        "Phases were measured each time a case was prepared; the figures are medians over the "
        "passes."
        if varying
        else "Phases were measured once, when a case was prepared, so they have no spread; the "
        "epoch is the median of all rounds."
    )
    for name in dict.fromkeys(row.contender for row in rows if _was_cached(row)):
        seconds = _compile_s(analysis.results, name)
        yield f"{numbers.CACHED} {name} had compiled its code before: " + (
            f"compiling took {numbers.duration(seconds)} in other trainings of this run."
            if seconds
            else "an earlier run left it in the cache on disk."
        )


def _compile_s(results: ResultSet, contender: str) -> float:
    """Return the total compile time of all trainings; each row counts once."""
    rows = [row for row in results.measurements.values() if row.contender == contender]
    return sum(max(phases.get("compile", 0.0) for phases in row.phases.values()) for row in rows)


def accuracy_table(results: ResultSet) -> Table:
    """Return the table of seconds and epochs to each accuracy."""
    groups: dict[str, list[Row]] = {}
    for time in times_to_accuracy(results):
        cells: list[Cell | str] = [contender_cell(results, time.contender)]
        if time.seconds:
            cells += [
                numbers.duration(float(np.median(time.seconds))),
                numbers.between(min(time.seconds), max(time.seconds), of_time=True),
                f"{np.median(time.epochs):g}",
            ]
        else:
            cells.append(Cell("no seed reached it", span=3, kind="missing"))
        cells.append(f"{time.seeds - len(time.seconds)} of {time.seeds}")
        name = f"{time.network}, batch {time.batch}, to {time.target:.0%}"
        groups.setdefault(name, []).append(cells)
    columns = ("", "median time", "fastest–slowest seed", "median epochs", "failed seeds")
    return make_table(columns, groups, heading="network and accuracy")


def memory_table(analysis: Analysis) -> Table:
    """Return the table of the peak memory of processes that run only one training or population."""
    results = analysis.results
    groups = {
        case.name: [
            (
                contender_cell(results, row.contender),
                numbers.size(row.info.peak_host_bytes),
                numbers.size(row.info.peak_device_bytes),
            )
            for row in results.of_case(case)
            if row.info.peak_host_bytes is not None or row.info.peak_device_bytes is not None
        ]
        # Release 0.1.0 measured the recipes in processes of their own.
        for case in (*(results.cases("start") or analysis.recipes()), *results.cases("population"))
    }
    return make_table(("", "host", "device"), groups, heading="case")


def missing_table(results: ResultSet) -> Table:
    """Return the table of the rows without a time, grouped by contender and reason."""
    groups = {"failed": _missing_rows(results.failed), "absent": _missing_rows(results.absent)}
    return make_table(("", "reason", "rows"), groups, texts=(1, 2), heading="status")


def _missing_rows(missing: Sequence[Missing]) -> Iterator[Row]:
    by_reason: dict[tuple[str, str], list[Missing]] = {}
    for row in missing:
        by_reason.setdefault((row.contender, row.reason), []).append(row)
    for (contender, reason), rows in by_reason.items():
        first = f"{rows[0].level}: {rows[0].case}"
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        yield contender, reason, first + more


def comparison_table(analysis: Analysis, cases: Sequence[Case]) -> Table:
    """Return a row per case: the figure of each contender, the best in bold, and the best ratio.

    The figures are images per second, and seconds for starts.
    """
    results = analysis.results
    present = [
        name
        for name in results.contenders
        if any((case.level, case.name, name) in results.measurements for case in cases)
    ]
    rows: list[Row] = []
    for case in cases:
        ours = analysis.fastest_own(case)
        rows.append(
            [
                case.name,
                *(_figure_cell(analysis, case, name) for name in present),
                numbers.ratio(ours.estimate if ours else None),
            ]
        )
    host = results.host
    threads = "thread" if host.threads == 1 else "threads"
    where = f"{host.cpu}, {host.threads} {threads}" + (f", {host.gpu}" if host.gpu else "")
    notes = [f"Medians on {where}; in parentheses: 95 % interval."]
    heading = "seconds" if cases and cases[0].level == "start" else "images/s"
    columns = (heading, *present, "our best / best baseline")
    return make_table(columns, {"": rows}, notes=notes)


def _figure_cell(analysis: Analysis, case: Case, name: str) -> Cell | str:
    results = analysis.results
    row = results.measurements.get((case.level, case.name, name))
    if row is None:
        failed = any(one.key == (case.level, case.name, name) for one in results.failed)
        return "failed" if failed else numbers.NO_FIGURE
    best = analysis.of_case(case)[0].measurement is row
    seconds = row.round_seconds.median
    if case.level == "start":
        return Cell(numbers.digits(seconds), strong=best)
    return Cell(numbers.count(row.info.images / seconds), strong=best)
