"""The report as a single HTML page without external files."""

from itertools import groupby
from pathlib import Path
from typing import Any

from backends import pip
from benchmarks.report import charts, machine_tables, tables
from benchmarks.report.analysis import Analysis
from benchmarks.report.sections import sections
from benchmarks.report.summary import summarize
from benchmarks.storage.schema import TIMED_LEVELS
from mnist_accel.errors import MissingPackageError

TEMPLATE = Path(__file__).with_name("page.html.j2")


def to_html(analysis: Analysis) -> str:
    """Return the page.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingPackageError(
            "the HTML report needs the package jinja2, which is not installed: "
            f"{pip('install', 'jinja2')}"
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE.name).render(**_content(analysis))


def _content(analysis: Analysis) -> dict[str, Any]:
    """Return the variables of the template."""
    results = analysis.results
    recipes = analysis.recipes()
    chosen = charts.looks(results)
    parts = list(sections(analysis))
    shown = {*recipes, *(case for part in parts for case in part.cases)}
    details = {}
    for level in TIMED_LEVELS:
        others = [case for case in results.cases(level) if case not in shown]
        details[level] = {
            network: tables.case_table(analysis, list(cases), with_absent=False)
            for network, cases in groupby(others, key=lambda case: case.network)
        }
    return {
        "sections": parts,
        "summary": summarize(analysis),
        "results": results,
        "looks": [(look, charts.key(look)) for look in chosen.values()],
        "own_looks": [(look, charts.key(look)) for look in chosen.values() if not look.is_baseline],
        "phase_legend": [(look, charts.key(look)) for look in charts.PHASE_LOOKS],
        "recipes": tables.case_table(analysis, recipes, with_absent=True) if recipes else None,
        "details": details,
        "speeds": charts.speeds(analysis, chosen),
        "throughputs": list(charts.throughputs(analysis, chosen)),
        "rooflines": list(charts.rooflines(analysis, chosen)),
        "phases": list(charts.phases(analysis, chosen)),
        "phases_table": tables.phases_table(analysis),
        "accuracies": list(charts.accuracies(results, chosen)),
        "accuracy_table": tables.accuracy_table(results),
        "growths": list(charts.growths(analysis, chosen)),
        "growth_table": tables.growth_table(analysis),
        "losses": tables.losses_tables(analysis),
        "memory": tables.memory_table(analysis),
        "missing": tables.missing_table(results),
        "contenders": machine_tables.contenders_table(results),
        "host": machine_tables.host_table(results),
    }
