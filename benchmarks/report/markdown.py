"""The report as Markdown, and the tables in the documents."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.report import machine_tables, tables
from benchmarks.report.analysis import Analysis
from benchmarks.report.sections import published_tables, sections
from benchmarks.report.summary import summarize
from benchmarks.report.tables import Cell, Table
from benchmarks.storage.schema import TIMED_LEVELS
from mnist_accel.errors import UsageError, escaped
from mnist_accel.util.files import write_atomically
from mnist_accel.util.input_files import read_regular
from mnist_accel.util.text import one_line

_MARKER = re.compile(r"<!-- benchmark table (?P<name>[a-z]+): (?P<end>begin|end) -->")
_MAX_BYTES = 2**24  # largest file whose table is replaced


def to_markdown(analysis: Analysis) -> str:
    """Return the whole report."""
    return "\n".join(_blocks(analysis))


def _blocks(analysis: Analysis) -> Iterator[str]:
    results = analysis.results
    summary = summarize(analysis)
    yield f"# Benchmarks of mnist_accel\n\n**{_escaped(summary.headline)}**\n"
    findings = (*summary.recipes, *summary.findings)
    if findings:
        yield "".join(f"- {_escaped(finding)}\n" for finding in findings)
    if summary.cautions:
        yield "".join(f"> {_escaped(caution)}\n" for caution in summary.cautions)
    yield (
        "All contenders compute in float32, without TF32. Times are medians of all n rounds, with "
        "their 10th and 90th percentiles. Ratios are speeds divided by the speed of the fastest "
        "baseline on the same kind of device. Each contender runs in its own process; a ratio is "
        "the median of the ratios of all passes, in which the contenders have turns a fraction of "
        "a second apart. The ratio of a second run on this machine is expected within the 95 % "
        "interval (bootstrap over processes). A ratio whose interval is wider than a factor of 2 "
        "is undecided, and counts in no ranking. The roofline is the speed that the counted "
        "operations and bytes allow at the measured peak rates.\n"
    )
    recipes = analysis.recipes()
    if recipes:
        table = tables.case_table(analysis, recipes, with_absent=True)
        yield f"## Training the recipes\n\n{render(table)}"
    shown = {*recipes}
    for section in sections(analysis):
        shown |= {*section.cases}
        yield f"## {section.heading}\n\n{_escaped(section.text)}\n\n{render(section.table)}"
    for level in TIMED_LEVELS:
        cases = [case for case in results.cases(level) if case not in shown]
        if cases:
            table = tables.case_table(analysis, cases, with_absent=False)
            other = ", other sizes" if level == "training" and recipes else ""
            yield f"## {level.capitalize()}{other}\n\n{render(table)}"
    for heading, table in (
        *(
            (f"Where {name} is slower", table)
            for name, table in tables.losses_tables(analysis).items()
        ),
        ("Before the steady state", tables.phases_table(analysis)),
        ("Time to accuracy", tables.accuracy_table(results)),
        ("Growth of the cost", tables.growth_table(analysis)),
        ("Peak memory", tables.memory_table(analysis)),
        ("Absent and failed rows", tables.missing_table(results)),
        ("Contenders", machine_tables.contenders_table(results)),
        ("Machine and software", machine_tables.host_table(results)),
    ):
        if table.groups:
            yield f"## {heading}\n\n{render(table)}"


def _content(make: Callable[[], Table]) -> str:
    """Return a table as text, or the sentence that states why it is empty."""
    table = make()
    if table.groups:
        return render(table)
    return f"{_escaped(table.notes[-1])}\n" if len(table.notes) > 1 else "Not measured.\n"


def render(table: Table) -> str:
    """Return a table in Markdown; the headings of the groups become the first column."""
    grouped = bool(table.heading)
    columns = map(_escaped, ((table.heading,) if grouped else ()) + table.columns)
    numeric = ((False,) if grouped else ()) + table.numeric
    lines = [_row(columns), _row("--:" if right else "---" for right in numeric)]
    for group in table.groups:
        for index, row in enumerate(group.rows):
            first = [_escaped(group.heading) if index == 0 else ""] if grouped else []
            lines.append(_row([*first, *_cells(row)]))
    for note in table.notes:
        lines += ["", _escaped(note)]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: tuple[Cell, ...]) -> Iterator[str]:
    for cell in row:
        text = _escaped(cell.text)
        yield f"**{text}**" if cell.strong and text else text
        yield from [""] * (cell.span - 1)


def _escaped(text: str) -> str:
    """Return a text as a single line, with the special characters of Markdown escaped."""
    plain = escaped(one_line(text))
    for special in "\\`*_|<[":
        plain = plain.replace(special, f"\\{special}")
    return plain


def update_tables(path: Path, analysis: Analysis, report: Path) -> None:
    """Replace the text between each pair of markers of a file with the table of that name.

    Between the markers with the name `report`, the text is a link to the report. Tables without
    results remain as they are, so that one file may have tables of several machines.

    Raises:
        UsageError: the file cannot be read or written, its markers are not pairs, or a marker
            names a table that does not exist.
    """
    try:
        text = read_regular(path, max_bytes=_MAX_BYTES).decode()
        target = os.path.relpath(report, path.parent).replace(os.sep, "/")
        link = f"The [full report]({target}) contains every row, with its spread.\n"
        write_atomically(path, "".join(_updated(path, text, analysis, link)).encode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text") from error
    except OSError as error:
        raise UsageError(f"cannot rewrite {path}: {error.strerror}") from error


def _updated(path: Path, text: str, analysis: Analysis, link: str) -> Iterator[str]:
    """Yield the lines of a file with new tables."""
    tables_of = published_tables(analysis)
    made: dict[str, Callable[[], str] | None] = {"report": lambda: link}
    made |= {name: table and partial(_content, table) for name, table in tables_of.items()}
    inside, found = "", False
    for line in text.splitlines(keepends=True):
        marker = _MARKER.fullmatch(line.strip())
        if marker is None:
            if not inside or made[inside] is None:
                yield line
            continue
        name, is_end = marker["name"], marker["end"] == "end"
        if inside != (name if is_end else ""):
            raise UsageError(f"{path}: {line.strip()} does not belong to a pair of markers")
        if name not in made:
            raise UsageError(
                f"{path}: there is no table {name!r}; the tables are {', '.join(made)}"
            )
        inside, found = "" if is_end else name, True
        make = made[name]
        yield line if is_end or make is None else line + make()
    if inside or not found:
        raise UsageError(
            f"{path} must contain lines such as <!-- benchmark table recipes: begin --> and "
            "<!-- benchmark table recipes: end -->, in pairs"
        )
