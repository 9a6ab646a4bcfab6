"""One test per level; each of its parameters is a turn of a contender in a case."""

import pytest

from benchmarks.session.plugin import Measure, worker_clock
from benchmarks.suite.cases import (
    AccuracyCase,
    EstimatorCase,
    InferenceCase,
    OperationCase,
    PopulationCase,
    StartCase,
    TrainingCase,
)

pytestmark = pytest.mark.benchmark(timer=worker_clock)


def test_training(measure: Measure, case: TrainingCase, contender: str, number: int) -> None:
    """Time epochs of a training on data that are on the device."""
    measure(case, contender, number)


def test_inference(measure: Measure, case: InferenceCase, contender: str, number: int) -> None:
    """Time predictions, from images on the host to probabilities on the host."""
    measure(case, contender, number)


def test_operations(measure: Measure, case: OperationCase, contender: str, number: int) -> None:
    """Time single operations, on inputs that are on the device."""
    measure(case, contender, number)


def test_start(measure: Measure, case: StartCase, contender: str, number: int) -> None:
    """Time new processes from their start to the end of the first update."""
    measure(case, contender, number)


def test_population(measure: Measure, case: PopulationCase, contender: str, number: int) -> None:
    """Time trainings of several networks at once, on data that are on the device."""
    measure(case, contender, number)


def test_estimator(measure: Measure, case: EstimatorCase, contender: str, number: int) -> None:
    """Time fits of scikit-learn estimators, from host arrays; `number` is the random state."""
    measure(case, contender, number)


def test_accuracy(measure: Measure, case: AccuracyCase, contender: str, number: int) -> None:
    """Time trainings until they reach a validation accuracy; `number` is the seed.

    A tenth of the training set is held out. Accuracy is measured on it after each epoch, outside of
    the measured time. The learning rate is constant, and the same for all contenders.
    """
    measure(case, contender, number)
