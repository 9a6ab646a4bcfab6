"""The table of estimators: seconds per fit, their ratio, and scores over the seeds."""

import math
from collections.abc import Sequence

from benchmarks.report import numbers
from benchmarks.report.analysis import Analysis
from benchmarks.report.tables import Cell, Row, Table, make_table
from benchmarks.storage.results import Measurement
from benchmarks.storage.schema import Case
from mnist_accel.populations.statistics import Comparison, compare_paired, mean_of

OURS, THEIRS = "numba", "scikit-learn"
_MINUS = "−"


def estimator_table(analysis: Analysis, cases: Sequence[Case]) -> Table:
    """Return a row per case: seconds of a fit, ratio, epochs, scores and their paired difference.

    Scores are accuracies in percent, or R² of regressors in hundredths.
    """
    rows = [_row(analysis, case) for case in cases]
    columns = (
        "seconds per fit", OURS, THEIRS, "speed", "epochs", f"score of {OURS}", f"of {THEIRS}",
        "difference",
    )  # fmt: skip
    host = analysis.results.host
    notes = [
        f"Medians on {host.cpu}, {host.threads} threads; in parentheses: 95 % interval. Scores are "
        "accuracies in %, or R² of regressors × 100: mean ± standard deviation over "
        f"{_seeds(analysis, cases)} seeds, and the mean difference of the fits with the same seed "
        "with its 95 % confidence interval."
    ]
    return make_table(columns, {"": rows}, notes=notes)


def _row(analysis: Analysis, case: Case) -> Row:
    measured = {row.contender: row for row in analysis.results.of_case(case)}
    best = min(row.round_seconds.median for row in measured.values())
    times: list[Cell | str] = []
    for name in (OURS, THEIRS):
        seconds = measured[name].round_seconds.median if name in measured else None
        times.append(
            numbers.NO_FIGURE
            if seconds is None
            else Cell(numbers.digits(seconds), strong=seconds == best)
        )
    ours = analysis.fastest_own(case)
    epochs = [_epochs(measured[name]) for name in (OURS, THEIRS) if name in measured]
    return [
        case.name,
        *times,
        numbers.ratio(ours.estimate if ours else None),
        " / ".join(dict.fromkeys(epochs)),
        *(_score(measured.get(name)) for name in (OURS, THEIRS)),
        _difference(measured.get(OURS), measured.get(THEIRS)),
    ]


def _seeds(analysis: Analysis, cases: Sequence[Case]) -> str:
    """Return the number of seeds, as "10" or "3 to 10"."""
    counts = {len(row.fits) for case in cases for row in analysis.results.of_case(case)}
    return " to ".join(map(str, sorted({min(counts), max(counts)}))) if counts else "0"


def _epochs(row: Measurement) -> str:
    """Return the number of epochs of the fits, or the smallest and the largest."""
    counts = [fit.epochs for fit in row.fits.values()]
    return "–".join(map(str, sorted({min(counts), max(counts)})))


def _score(row: Measurement | None) -> str:
    if row is None:
        return numbers.NO_FIGURE
    mean = mean_of([100 * fit.score for fit in row.fits.values()])
    deviation = "" if math.isnan(mean.std) else f" ± {mean.std:.2f}"
    return f"{mean.mean:.2f}{deviation}"


def _difference(ours: Measurement | None, theirs: Measurement | None) -> str:
    """Return the mean of our score minus theirs with the same seed, and its interval."""
    found = None if ours is None or theirs is None else score_difference(ours, theirs)
    if found is None:
        return numbers.NO_FIGURE
    low, high, mean = (
        f"{value:+.2f}".replace("-", _MINUS) for value in (found.low, found.high, found.difference)
    )
    return f"{mean} ({low} to {high})"


def score_difference(ours: Measurement, theirs: Measurement) -> Comparison | None:
    """Compare the scores of two contenders × 100, paired by seed; None with fewer than two."""
    first, second = (
        {seed: 100 * fit.score for seed, fit in row.fits.items()} for row in (theirs, ours)
    )
    if len(first.keys() & second.keys()) < 2:
        return None
    return compare_paired(first, second, names=(THEIRS, OURS), measure="score")
