"""What estimators are fitted on, and the comparison of their first updates with a reference."""

import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.project import ProjectBackend
from benchmarks.storage.schema import Check
from benchmarks.suite.cases import EstimatorCase
from benchmarks.suite.checks import STEPS, Trajectory, compare
from benchmarks.suite.tasks import full_images
from mnist_accel.data import load_dataset

# Returns a new estimator with some settings.
NewEstimator: TypeAlias = Callable[..., Any]

Array = NDArray[Any]
_FEATURES, _EXAMPLES, _HIDDEN, _CLASSES = 100, 12_500, 20, 10


class Examples(NamedTuple):
    """Examples in the form that scikit-learn takes.

    Attributes:
        x: features to fit (N, F).
        y: class numbers (N,), for regressors as floating-point numbers.
        x_test: features to score.
        y_test: their classes or targets.
    """

    x: Array
    y: Array
    x_test: Array
    y_test: Array


@lru_cache(maxsize=1)  # the largest has half a gigabyte
def estimator_data(case: EstimatorCase) -> Examples:
    """Return the examples of a case.

    A regressor learns the number of the class; of the features, the noisy number that decides it.

    Raises:
        DataError: the data set cannot be read or downloaded.
    """
    is_regressor = case.task == "regressor"
    if case.data in ("digits", "features"):
        from sklearn.model_selection import train_test_split

        x, y = _digits() if case.data == "digits" else _features(is_regressor=is_regressor)
        x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, random_state=0)
    else:
        images = load_dataset("mnist" if case.data == "full images" else case.data)
        x, x_test = images.x_train, images.x_test
        if case.data == "full images":
            x, x_test = full_images(x), full_images(x_test)
        x, x_test = (part.reshape(len(part), -1) / 255 for part in (x, x_test))
        y, y_test = images.t_train, images.t_test
    x, x_test = (np.ascontiguousarray(part, case.dtype) for part in (x, x_test))
    if is_regressor:
        y, y_test = (part.astype(case.dtype) for part in (y, y_test))
    return Examples(x, y, x_test, y_test)


def _digits() -> tuple[Array, Array]:
    """Return 8×8 pixels in 0…1, and labels.

    With the pixels 0…16 that scikit-learn provides, the first losses of `MLPClassifier` are too
    small, because it limits the logarithm of a probability near 0.
    """
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return x / 16, y


def _features(*, is_regressor: bool) -> tuple[Array, Array]:
    """Return normal features, and classes or numbers that a random network assigns to them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((_EXAMPLES, _FEATURES))
    hidden = np.tanh(x @ rng.standard_normal((_FEATURES, _HIDDEN)) / np.sqrt(_FEATURES))
    scores = hidden @ rng.standard_normal((_HIDDEN, _CLASSES))
    scores += 0.3 * rng.standard_normal(scores.shape)
    return x, scores[:, 0] if is_regressor else scores.argmax(axis=1)


def fit(estimator: Any, x: Array, y: Array) -> None:
    """Fit an estimator without its warning that the maximum number of epochs is reached."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(x, y)


def reference_updates(case: EstimatorCase) -> Trajectory:
    """Return the first updates in float64 on NumPy.

    The tests compare this estimator with that of scikit-learn, and its network with the loops.
    """
    exact = msgspec.structs.replace(case, dtype="float64")
    return _first_updates(partial(ProjectBackend("numpy").estimator, case.task), exact)


def check_fit(new: NewEstimator, case: EstimatorCase, expected: Trajectory) -> Check:
    """Compare the first updates of an estimator with the reference.

    Raises:
        CheckError: the results differ by more than rounding.
    """
    terms = max(estimator_data(case).x.shape[1], case.batch)
    return compare(_first_updates(new, case), expected, dtype=case.dtype, terms=terms)


def _first_updates(new: NewEstimator, case: EstimatorCase) -> Trajectory:
    """Return losses and weights of a fit of some epochs on one batch.

    scikit-learn adds the epsilon of Adam before the bias correction; without `beta_2` both formulas
    are equal. With a small epsilon, rounding of a gradient near 0 would change its step.
    """
    data, batch = estimator_data(case), slice(0, case.batch)
    estimator = new(max_iter=STEPS, beta_2=0.0, epsilon=0.01, random_state=0)
    fit(estimator, data.x[batch], data.y[batch])
    pairs = zip(estimator.coefs_, estimator.intercepts_, strict=True)
    weights = {
        name: array
        for number, (weight, bias) in enumerate(pairs, start=1)
        for name, array in ((f"W{number}", weight), (f"b{number}", bias))
    }
    return Trajectory({}, tuple(estimator.loss_curve_), weights)
