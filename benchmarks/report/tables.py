"""The tables of the report, as data: Markdown and HTML write the same ones."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from backends.numba.threads import MIN_IMAGES_PER_THREAD
from benchmarks.report import numbers
from benchmarks.report.analysis import (
    KEEPS_COMPILED,
    UNSTEADY,
    Analysis,
    Standing,
    times_to_accuracy,
)
from benchmarks.results import PHASES, Case, Measurement, Missing, ResultSet
from benchmarks.rivals import FOR_SCALE


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: what it says.
        strong: whether it stands out.
        share: length of the bar behind it, 0…1; None for no bar.
        span: columns that it takes.
        kind: "peer", "scale", "name", "missing" or "failed" where it looks different.
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
    """A table.

    Attributes:
        columns: their headings; the first is text, the others as `numeric` says.
        groups: of rows.
        numeric: which columns hold figures.
        heading: what the headings of the groups are; empty where there are none.
        notes: sentences beneath it.
    """

    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    numeric: tuple[bool, ...]
    heading: str = ""
    notes: tuple[str, ...] = ()


def _table(
    columns: Sequence[str],
    groups: Iterable[Group],
    *,
    texts: Iterable[int] = (),
    heading: str = "",
    notes: Iterable[str] = (),
) -> Table:
    """Make a table of figures; the first column and those in `texts` hold text."""
    words = {0, *texts}
    numeric = tuple(index not in words for index in range(len(columns)))
    kept = tuple(group for group in groups if group.rows)
    return Table(tuple(columns), kept, numeric, heading, tuple(notes))


_PER_CALL = {"training": "step", "inference": "call", "operations": "call"}


def case_table(analysis: Analysis, cases: Sequence[Case], *, with_absent: bool) -> Table:
    """Make the table of the measurements of some cases of one level.

    Args:
        analysis: of the results.
        cases: at least one, all of one level.
        with_absent: whether contenders that cannot run on this machine have rows too. Those that
            cannot do one case are named in `missing_table` alone.
    """
    level = cases[0].level
    first = () if level == "operations" else ("images/s", "p10–p90")
    columns: tuple[str, ...] = (
        "", "× best peer", "95 % interval", *first, f"time per {_PER_CALL[level]}", "p10–p90", "n",
        "of floor", "check",
    )  # fmt: skip
    measured = {measurement.contender for measurement in analysis.results.measurements.values()}
    absent = [
        row for row in analysis.results.absent if with_absent and row.contender not in measured
    ]
    groups = []
    for case in cases:
        standings = analysis.of_case(case)
        fastest = standings[0].measurement.call_seconds.median if standings else 0.0
        rows = [_standing_row(analysis.results, row, fastest, level) for row in standings]
        rows += [
            (Cell(row.contender), Cell(f"{label}: {row.reason}", span=len(columns) - 1, kind=kind))
            for missing, label, kind in (
                (analysis.results.failed, "failed", "failed"),
                (absent, "absent", "missing"),
            )
            for row in missing
            if (row.level, row.case) == (case.level, case.name)
        ]
        groups.append(Group(case.name, tuple(rows)))
    every = (standing for case in cases for standing in analysis.of_case(case))
    notes = []
    if any(standing.unsteadiness > UNSTEADY for standing in every):
        notes.append(
            f"{numbers.UNSTEADY} The medians of the slowest and the fastest pass differ by more "
            f"than a factor of {UNSTEADY:g}."
        )
    return _table(columns, groups, heading="case", notes=notes)


def _standing_row(
    results: ResultSet, standing: Standing, fastest: float, level: str
) -> tuple[Cell, ...]:
    measurement = standing.measurement
    seconds = measurement.call_seconds
    best = seconds.median == fastest
    speed = standing.speed
    against = "best peer" if standing.is_best_peer else numbers.NO_FIGURE
    cells = [
        _contender_cell(results, measurement.contender, strong=best),
        # What a reader looks for stands where a phone shows it.
        Cell(numbers.times(speed.value) if speed else numbers.NO_FIGURE, strong=standing.wins),
        Cell(against if speed is None or standing.is_best_peer else numbers.interval(speed)),
    ]
    share: float | None = fastest / seconds.median
    if level != "operations":
        epoch, images = measurement.round_seconds, measurement.images
        cells += [
            Cell(numbers.count(images / epoch.median), strong=best, share=share),
            Cell(numbers.between(images / epoch.p90, images / epoch.p10, of_time=False)),
        ]
        share = None
    unsteady = f" {numbers.UNSTEADY}" if standing.unsteadiness > UNSTEADY else ""
    return (
        *cells,
        Cell(numbers.duration(seconds.median), share=share),
        Cell(numbers.between(seconds.p10, seconds.p90, of_time=True)),
        Cell(f"{seconds.n}{unsteady}"),
        Cell(numbers.percent(standing.floor)),
        Cell(f"{measurement.check.difference:.0e}"),
    )


def losses_tables(analysis: Analysis) -> dict[str, Table]:
    """Make, for each backend of this project, the table of the rows that the best peer wins."""
    losses: dict[str, Table] = {}
    for name, contender in analysis.results.contenders.items():
        if contender.is_peer:
            continue
        rows = [
            standing
            for standing in analysis.standings.values()
            if standing.measurement.contender == name and standing.loses
        ]
        rows.sort(key=lambda row: row.speed.value if row.speed else 1.0)
        if rows:
            losses[name] = _table(
                ("case", "× best peer", "95 % interval", "best peer", "level"),
                [Group("", tuple(_loss_row(row) for row in rows))],
                texts=(3, 4),
            )
    return losses


def _loss_row(row: Standing) -> tuple[Cell, ...]:
    case, speed = row.measurement.case, row.speed
    assert speed is not None
    return (
        Cell(case.name),
        Cell(numbers.times(speed.value)),
        Cell(numbers.interval(speed)),
        Cell(row.peer or "", kind="name"),
        Cell(case.level),
    )


def growth_table(analysis: Analysis) -> Table:
    """Make the table of the fitted exponents."""
    groups: dict[str, list[tuple[Cell, ...]]] = {}
    for growth in analysis.growth:
        sizes = [size for size, _ in growth.points]
        groups.setdefault(f"{growth.network}, {growth.sweep}", []).append(
            (
                _contender_cell(analysis.results, growth.contender),
                Cell(f"{growth.exponent.value:.2f}"),
                Cell(f"{growth.exponent.low:.2f} to {growth.exponent.high:.2f}"),
                Cell(f"{min(sizes)}–{max(sizes)}"),
                Cell(str(len(sizes))),
            )
        )
    return _table(
        ("", "exponent", "95 % interval", "sizes", "n"),
        [Group(name, tuple(rows)) for name, rows in groups.items()],
        heading="network, size",
    )


def phases_table(analysis: Analysis) -> Table:
    """Make the table of the seconds before and in the steady state of the recipes."""
    groups = []
    for case in analysis.recipes():
        rows = [
            (
                _contender_cell(analysis.results, row.contender),
                *(_phase_cell(row, phase) for phase in PHASES),
                Cell(numbers.duration(row.round_seconds.median)),
            )
            for row in (standing.measurement for standing in analysis.of_case(case))
        ]
        groups.append(Group(case.name, tuple(rows)))
    columns = ("", *(phase.replace("_", " ") for phase in PHASES), "a steady epoch")
    return _table(columns, groups, heading="case", notes=_phase_notes(analysis))


def _phase_cell(row: Measurement, phase: str) -> Cell:
    seconds = row.phases_s.get(phase)
    if phase == "compile" and _was_compiled_before(row):
        return Cell(numbers.NO_FIGURE + numbers.COMPILED_BEFORE)
    return Cell(numbers.NO_FIGURE if seconds is None else numbers.duration(seconds))


def _was_compiled_before(row: Measurement) -> bool:
    """Whether no time for compiling means that compiled code lay on the disk."""
    return row.contender in KEEPS_COMPILED and not row.phases_s.get("compile")


def _phase_notes(analysis: Analysis) -> Iterator[str]:
    """Say how often the phases were measured, and what compilers had done before."""
    rows = [row for case in analysis.recipes() for row in analysis.results.of_case(case)]
    often = any(len({tuple(p.items()) for p in row.phases.values()}) > 1 for row in rows)
    yield (
        "What comes before a steady epoch was measured "
        + (
            "whenever a case was prepared; these are the medians over the passes."
            if often
            else "once, when a case was prepared, so it has no spread; the epoch is the median of "
            "all rounds."
        )
    )
    for name in dict.fromkeys(row.contender for row in rows if _was_compiled_before(row)):
        seconds = _compiling_s(analysis.results, name)
        yield f"{numbers.COMPILED_BEFORE} {name} found its code compiled: " + (
            f"the trainings of this run that met it first compiled for {numbers.duration(seconds)}."
            if seconds
            else "it lay on the disk, since an earlier run."
        )


def _compiling_s(results: ResultSet, contender: str) -> float:
    """Return the seconds that all trainings together compiled; a continued one did so once."""
    rows = [row for row in results.measurements.values() if row.contender == contender]
    return sum(max(phases.get("compile", 0.0) for phases in row.phases.values()) for row in rows)


def accuracy_table(results: ResultSet) -> Table:
    """Make the table of seconds and epochs to each accuracy."""
    groups: dict[str, list[tuple[Cell, ...]]] = {}
    for time in times_to_accuracy(results):
        reached = len(time.seconds)
        name = f"{time.network}, batch {time.batch}, to {time.target:.0%}"
        rows = groups.setdefault(name, [])
        cells = [_contender_cell(results, time.contender)]
        if time.seconds:
            seconds = sorted(time.seconds)
            cells += [
                Cell(numbers.duration(float(np.median(seconds)))),
                Cell(numbers.between(seconds[0], seconds[-1], of_time=True)),
                Cell(f"{np.median(time.epochs):g}"),
            ]
        else:
            cells.append(Cell("no seed reached it", span=3, kind="missing"))
        rows.append((*cells, Cell(f"{time.seeds - reached} of {time.seeds}")))
    return _table(
        ("", "seconds, median", "fastest–slowest seed", "epochs, median", "seeds that failed"),
        [Group(name, tuple(rows)) for name, rows in groups.items()],
        heading="network and accuracy",
    )


def memory_table(analysis: Analysis) -> Table:
    """Make the table of the peak memory of the recipes."""
    groups = []
    for case in analysis.recipes():
        rows = [
            (
                _contender_cell(analysis.results, row.contender),
                Cell(numbers.size(row.peak_host_bytes)),
                Cell(numbers.size(row.peak_device_bytes)),
            )
            for row in analysis.results.of_case(case)
            if row.peak_host_bytes is not None or row.peak_device_bytes is not None
        ]
        groups.append(Group(case.name, tuple(rows)))
    return _table(("", "host", "device"), groups, heading="case")


def missing_table(results: ResultSet) -> Table:
    """Make the table of the rows without a time, those of one reason together."""
    groups = [
        Group(heading, tuple(_missing_rows(missing)))
        for heading, missing in (("failed", results.failed), ("absent", results.absent))
    ]
    return _table(("", "reason", "rows"), groups, texts=(1, 2), heading="why there is no time")


def _missing_rows(missing: Sequence[Missing]) -> Iterable[tuple[Cell, ...]]:
    together: dict[tuple[str, str], list[Missing]] = {}
    for row in missing:
        together.setdefault((row.contender, row.reason), []).append(row)
    for (contender, reason), rows in together.items():
        named = f"{rows[0].level}: {rows[0].case}"
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        yield Cell(contender), Cell(reason), Cell(named + more)


def host_table(results: ResultSet) -> Table:
    """Make the table of the facts about the machine and the software."""
    host = results.host
    none = "none"
    facts = {
        "processor": host.cpu,
        "cores": f"{host.cores}, of which {host.threads} may be used",
        "vector width": f"{host.vector_width_bits} bits" if host.vector_width_bits else "unknown",
        "memory": numbers.size(host.memory_bytes) if host.memory_bytes else "unknown",
        "GPU": host.gpu or none,
        "GPU driver": host.gpu_driver or none,
        "system": host.os,
        "Python": host.python,
        "BLAS and thread pools": "; ".join(
            f"{blas.name} {blas.version or ''}, {blas.threads} threads".replace(" ,", ",")
            for blas in host.blas
        )
        or none,
        "Numba threading layer": host.numba_threading_layer or none,
        "load average, at the start and at the end": ", ".join(
            f"{load:.2f}" for load in host.load_average
        ),
        "versions": ", ".join(f"{name} {version}" for name, version in host.versions.items()),
        "commit": _commit(results),
        **dict(_ceiling_facts(results)),
        "runs": "; ".join(
            f"{path.name}: {run.profile} ({', '.join(run.levels)}), {run.passes} passes, "
            f"seed {run.seed}, {run.threads} threads, {run.started} to {run.finished}"
            + ("" if run.complete else ", not complete")
            for path, run in zip(results.paths, results.runs, strict=True)
        ),
    }
    rows = [(Cell(name), Cell(text)) for name, text in facts.items()]
    return _table(("fact", "value"), [Group("", tuple(rows))], texts=(1,))


def _ceiling_facts(results: ResultSet) -> Iterator[tuple[str, str]]:
    """Yield the best rates of each device, and how they were measured."""
    for device, name in (("cpu", "processor"), ("gpu", "GPU")):
        best = results.ceilings.get(device)
        if best is not None:
            rate = numbers.count(best.flops_per_s)
            yield f"arithmetic ceiling, {name}", f"{rate}FLOP/s, {best.how['flops_per_s']}"
            rate = numbers.count(best.bytes_per_s)
            yield f"memory ceiling, {name}", f"{rate}B/s, {best.how['bytes_per_s']}"


def contenders_table(results: ResultSet) -> Table:
    """Make the table of who takes part."""
    rows = [
        (
            Cell(contender.name),
            Cell(_WHOSE[_kind(results, contender.name)]),
            Cell(", ".join(f"{name} {version}" for name, version in contender.versions.items())),
            Cell(str(contender.threads)),
        )
        for contender in results.contenders.values()
    ]
    return _table(
        ("", "whose", "versions", "threads"),
        [Group("", tuple(rows))],
        texts=(1, 2),
        notes=_thread_notes(results),
    )


def _thread_notes(results: ResultSet) -> Iterator[str]:
    """Say who does not always take the threads that it may use."""
    numba = results.contenders.get("numba")
    if numba is not None and numba.threads > 1:
        yield (
            f"Threads are those that may be used; numba takes one in batches of less than "
            f"{2 * MIN_IMAGES_PER_THREAD}."
        )


_WHOSE = {"": "this project", "peer": "peer", "scale": "for scale: nobody is compared with it"}


def _commit(results: ResultSet) -> str:
    if results.host.commit is None:
        return "unknown"
    return results.host.commit + (" with uncommitted changes" if results.host.dirty else "")


def _contender_cell(results: ResultSet, name: str, *, strong: bool = False) -> Cell:
    return Cell(name, strong=strong, kind=_kind(results, name))


def _kind(results: ResultSet, name: str) -> str:
    """What kind of contender it is: one of `_WHOSE`."""
    if name in FOR_SCALE:
        return "scale"
    return "peer" if results.contenders[name].is_peer else ""
