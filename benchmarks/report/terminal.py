"""The results of a run in the terminal: a headline and the throughput of the trainings."""

from collections.abc import Iterator, Sequence
from typing import TextIO

import numpy as np

from benchmarks.report import numbers
from benchmarks.report.analysis import SEED, Analysis
from benchmarks.report.summary import cautions
from benchmarks.statistics import MAX_WIDTH, Estimate, paired_ratio
from benchmarks.storage.schema import Case
from mnist_accel.console.tables import print_table

REFERENCE = "numpy"  # newcomers know its speed
# The ratio in the table; without the first backend, with the second, and so on.
_COMPARED = ("numba", "cupy")
_UNDECIDED = f"""\
undecided: the 95 % interval of a ratio, from n passes, is wider than a factor
of {MAX_WIDTH:g}, so the first sentence leaves it out; --passes N measures longer"""


def print_results(analysis: Analysis, stream: TextIO) -> None:
    """Print how much faster than NumPy the backends train, and a table of images per second."""
    cases = analysis.recipes() or analysis.results.cases("training")
    if not cases:
        return
    rates = {case: _rates(analysis, case) for case in cases}
    ratios = {name: _ratios(analysis, cases, name) for name in _COMPARED}
    print(file=stream)
    for sentence in headlines(analysis):
        print(sentence, file=stream)
    names = [name for name in analysis.backends() if any(name in one for one in rates.values())]
    compared = [name for name in _COMPARED if name in names and REFERENCE in names]
    rows = [
        [
            case.name,
            *(_ratio(ratios[name].get(case)) for name in compared),
            *(_rate(rates[case], name) for name in names),
            _best_baseline(analysis, case),
        ]
        for case in cases
    ]
    print("\ntraining in images per second; the first columns are ratios\n", file=stream)
    headers = ["", *(f"{name} / {REFERENCE}" for name in compared), *names, "best baseline"]
    print_table(headers, rows, stream)
    if not all(ratio.is_decided for found in ratios.values() for ratio in found.values()):
        print(_UNDECIDED, file=stream)
    for caution in cautions(analysis.results):
        print(f"note: {caution}", file=stream)


def headlines(analysis: Analysis) -> Iterator[str]:
    """Yield one sentence for each backend that trained the same cases as NumPy."""
    cases = analysis.recipes() or analysis.results.cases("training")
    for name in _COMPARED:
        ratios = _ratios(analysis, cases, name).values()
        decided = [ratio.value for ratio in ratios if ratio.is_decided]
        if decided:
            low, high = (_figure(bound(decided)) for bound in (min, max))
            factor = low if low == high else f"{low} to {high}"
            yield f"{name} trains {factor} times as fast as {REFERENCE} on this machine."


def _rates(analysis: Analysis, case: Case) -> dict[str, float]:
    """Return the images per second of each contender that was measured in a case."""
    return {
        row.contender: row.info.images / row.round_seconds.median
        for row in analysis.results.of_case(case)
    }


def _ratios(analysis: Analysis, cases: Sequence[Case], name: str) -> dict[Case, Estimate]:
    """Return the speed of a backend relative to NumPy in each case, pass by pass."""
    rng, found = np.random.default_rng(SEED), {}
    measured = analysis.results.measurements
    for case in cases:
        rows = [measured.get((case.level, case.name, one)) for one in (REFERENCE, name)]
        if rows[0] is not None and rows[1] is not None:
            ratio = paired_ratio(rows[0].call_rounds, rows[1].call_rounds, rng)
            if ratio is not None:
                found[case] = ratio
    return found


def _ratio(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return _figure(estimate.value) if estimate.is_decided else numbers.undecided(estimate)


def _rate(rates: dict[str, float], name: str) -> str:
    """Return a rate with three significant digits."""
    return f"{float(f'{rates[name]:.3g}'):,.0f}" if name in rates else "–"


def _figure(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 9.95 else f"{ratio:.1f}"


def _best_baseline(analysis: Analysis, case: Case) -> str:
    for row in analysis.of_case(case):
        if row.is_best_baseline:
            name = row.measurement.contender
            return f"{_rate(_rates(analysis, case), name)} ({name})"
    return "–"
