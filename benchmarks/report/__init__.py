"""The report on results in words, tables and charts, and the comparison of two runs."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.report.analysis import analyze
from benchmarks.report.html import to_html
from benchmarks.report.markdown import to_markdown, update_tables
from benchmarks.storage.journal import SUFFIX
from benchmarks.storage.results import load_results
from mnist_accel.errors import UsageError
from mnist_accel.util.files import write_atomically


def report_command(paths: Sequence[Path], out: Path | None, update: Sequence[Path] = ()) -> int:
    """Write a report on result files as Markdown and as HTML, and print the paths.

    Args:
        paths: result files or journals of one machine.
        out: folder for the two files, which are named after the first result file. If None, the
            folder of that result file.
        update: Markdown files whose tables of results are replaced.

    Returns:
        The exit code.

    Raises:
        UsageError: a file cannot be read or written, or the files cannot be merged.
        MissingPackageError: jinja2 is not installed.
    """
    analysis = analyze(load_results(paths))
    folder = paths[0].parent if out is None else out
    stem = paths[0].name.removesuffix(SUFFIX).removesuffix(".gz").removesuffix(".json")
    contents = {".md": to_markdown(analysis), ".html": to_html(analysis)}
    report = folder / f"{stem}.md"
    for suffix, content in contents.items():
        path = report.with_name(stem + suffix)
        try:
            write_atomically(path, content.encode(errors="backslashreplace"))
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from error
        print(path)
    for path in update:
        update_tables(path, analysis, report)
        print(path)
    return 0
