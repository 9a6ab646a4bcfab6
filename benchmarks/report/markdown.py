"""The report as Markdown, and the table of the README."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.report import machine_tables, tables
from benchmarks.report.analysis import Analysis
from benchmarks.report.summary import summarize
from benchmarks.report.tables import Cell, Table
from benchmarks.storage.schema import TIMED_LEVELS
from mnist_accel.errors import UsageError, escaped
from mnist_accel.util.files import write_atomically
from mnist_accel.util.input_files import read_regular
from mnist_accel.util.text import one_line

BEGIN, END = "<!-- benchmark table: begin -->", "<!-- benchmark table: end -->"
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
        "baseline on the same kind of device; the ratio of a second run on this machine is "
        "expected within the 95 % interval (bootstrap over passes and rounds). The roofline is "
        "the speed that the counted operations and bytes allow at the measured peak rates.\n"
    )
    recipes = analysis.recipes()
    if recipes:
        table = tables.case_table(analysis, recipes, with_absent=True)
        yield f"## Training the recipes\n\n{render(table)}"
    for level in TIMED_LEVELS:
        cases = [case for case in results.cases(level) if case not in recipes]
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


def write_readme_table(path: Path, analysis: Analysis) -> None:
    """Replace the text between the two markers of a file with the table of these results.

    Raises:
        UsageError: the file cannot be read or written, or lacks one of the markers.
    """
    try:
        lines = read_regular(path, max_bytes=_MAX_BYTES).decode().splitlines(keepends=True)
        # Whole lines, because the texts of a table may contain the markers.
        begins, ends = ([i for i, t in enumerate(lines) if t.strip() == m] for m in (BEGIN, END))
        if not (len(begins) == len(ends) == 1 and begins < ends):
            raise UsageError(
                f"{path} must contain the lines {BEGIN} and {END} once each, in this order"
            )
        lines[begins[0] + 1 : ends[0]] = [render(tables.readme_table(analysis))]
        write_atomically(path, "".join(lines).encode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text") from error
    except OSError as error:
        raise UsageError(f"cannot rewrite {path}: {error.strerror}") from error
