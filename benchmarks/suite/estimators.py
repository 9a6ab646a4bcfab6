"""Fits of scikit-learn estimators, timed as a whole and scored."""

import gc
import time
from dataclasses import dataclass
from functools import partial

import msgspec

from benchmarks.contenders.base import Contender
from benchmarks.storage.schema import Fit, RowInfo
from benchmarks.suite.cases import EstimatorCase
from benchmarks.suite.costs import Cost
from benchmarks.suite.expected import read_trajectory
from benchmarks.suite.fits import NewEstimator, check_fit, estimator_data, fit
from benchmarks.suite.preparer import (
    Clock,
    NotComparableError,
    require_available,
    row_info,
    seconds_of,
    warm_up,
)


@dataclass(frozen=True)
class FitRow:
    """An estimator that passed its check and can be fitted.

    Attributes:
        case: what is measured.
        new: makes an estimator.
        info: the entry of the result file without times and results, as for pass 0.
        clock: returns the time in seconds.
    """

    case: EstimatorCase
    new: NewEstimator
    info: RowInfo
    clock: Clock = time.perf_counter

    def turn(self, seed: int) -> tuple[float, Fit]:
        """Warm up, then fit with a random state; return the seconds of the fit and its result."""
        data, batch = estimator_data(self.case), slice(0, self.case.batch)
        warm_up(lambda: fit(self.new(max_iter=1), data.x[batch], data.y[batch]), self.clock)
        estimator = self.new(max_iter=self.case.epochs, random_state=seed)
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            seconds = seconds_of(lambda: fit(estimator, data.x, data.y), self.clock)
        finally:
            if was_enabled:
                gc.enable()
        score = float(estimator.score(data.x_test, data.y_test))
        return seconds, Fit(score, estimator.n_iter_)


def prepare_fits(
    case: EstimatorCase, contender: Contender, expected: str, *, clock: Clock = time.perf_counter
) -> FitRow:
    """Return a row that is ready to be fitted; arguments and errors as `preparer.prepare`."""
    require_available(contender)
    new = partial(contender.estimator, case.task)
    try:
        new()
    except NotImplementedError as error:
        raise NotComparableError(str(error)) from error
    check = check_fit(new, case, read_trajectory(expected))
    data = estimator_data(case)
    # An epoch on all examples compiles the code that they need.
    first_call = seconds_of(lambda: fit(new(max_iter=1), data.x, data.y), clock)
    info = row_info(case, contender, Cost(0, 0), {"first_call": first_call}, check)
    return FitRow(case, new, msgspec.structs.replace(info, images=0), clock)
