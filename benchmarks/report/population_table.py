"""The table of populations: trainings per second, ratios and memory."""

from collections.abc import Sequence

import numpy as np

from benchmarks.report import numbers
from benchmarks.report.analysis import NOT_COMPARED, SEED, Analysis
from benchmarks.report.tables import Cell, Row, Table, make_table
from benchmarks.statistics import Estimate, paired_ratio
from benchmarks.storage.schema import Case

ONE_THREAD = "numba-one-thread"
EPOCH = 60_000  # images of a training


def population_table(analysis: Analysis, cases: Sequence[Case]) -> Table:
    """Return a row per case: trainings per second of each contender, ratios, and our memory.

    A training is an epoch of all images of MNIST.
    """
    results = analysis.results
    present = [
        name
        for name in results.contenders
        if any((case.level, case.name, name) in results.measurements for case in cases)
    ]
    rows = [_row(analysis, case, present) for case in cases]
    columns = ("trainings/s", *present, "/ best baseline", "/ one thread", "memory of numba")
    host = results.host
    notes = [
        f"A training is an epoch of 60,000 images. Medians on {host.cpu}, {host.threads} threads; "
        "in parentheses: 95 % interval."
    ]
    return make_table(columns, {"": rows}, notes=notes)


def _row(analysis: Analysis, case: Case, present: Sequence[str]) -> Row:
    measured = {row.contender: row for row in analysis.results.of_case(case)}
    rates = {
        name: row.info.images / EPOCH / row.round_seconds.median for name, row in measured.items()
    }
    best = max(rates.values(), default=0.0)
    figures = [
        Cell(numbers.count(rates[name]), strong=rates[name] == best)
        if name in rates
        else numbers.NO_FIGURE
        for name in present
    ]
    ours = analysis.fastest_own(case)
    memory = measured["numba"].info.peak_host_bytes if "numba" in measured else None
    return [
        case.name,
        *figures,
        numbers.ratio(ours.estimate if ours else None),
        numbers.ratio(_of_one_thread(analysis, case)),
        numbers.size(memory),
    ]


def _of_one_thread(analysis: Analysis, case: Case) -> Estimate | None:
    """Return the speed of our population relative to its members on one thread."""
    assert ONE_THREAD in NOT_COMPARED, "it is no baseline"
    measured = {row.contender: row for row in analysis.results.of_case(case)}
    if not {"numba", ONE_THREAD} <= measured.keys():
        return None
    rng = np.random.default_rng(SEED)
    return paired_ratio(measured[ONE_THREAD].call_rounds, measured["numba"].call_rounds, rng)
