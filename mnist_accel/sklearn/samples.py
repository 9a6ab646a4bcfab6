"""The checked samples of a call, and how their weights act."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import column_or_1d
from sklearn.utils.validation import _check_sample_weight

from mnist_accel.sklearn.compatibility import validate_data

Array = NDArray[Any]

_CHECKS = {"accept_sparse": ("csr", "csc"), "dtype": (np.float64, np.float32)}


class Samples(NamedTuple):
    """Samples to train or validate with.

    Attributes:
        features: (N, F), float32 or float64.
        y: labels or targets as the user gave them, (N,) or (N, outputs).
        targets: what the loss takes, class indices (N,) or numbers (N, outputs).
        weights: weight of each sample (N,); None for 1.
    """

    features: Array
    y: Array
    targets: Array
    weights: Array | None

    def rows(self, rows: Array) -> "Samples":
        """Return some of the samples."""
        weights = None if self.weights is None else self.weights[rows]
        return Samples(self.features[rows], self.y[rows], self.targets[rows], weights)

    @property
    def mean_weight(self) -> float:
        """The mean of the weights."""
        return 1.0 if self.weights is None else float(self.weights.mean())

    @property
    def relative_weights(self) -> Array | None:
        """The weights divided by their mean, so that the loss is the weighted mean."""
        return None if self.weights is None else self.weights / self.mean_weight


def checked_features(estimator: Any, X: Any) -> Array:
    """Return the features of a fitted estimator as a dense array, after checking them."""
    return _dense(validate_data(estimator, X, reset=False, **_CHECKS))


def checked_data(
    estimator: Any, X: Any, y: Any, *, reset: bool, y_numeric: bool
) -> tuple[Array, Array]:
    """Return features, dense, and labels or targets, after checking them.

    Args:
        estimator: the estimator.
        X: features as the user gave them.
        y: labels or targets.
        reset: whether the estimator forgets the features of earlier calls.
        y_numeric: whether y must be numbers.
    """
    X, y = validate_data(
        estimator, X, y, multi_output=True, y_numeric=y_numeric, reset=reset, **_CHECKS
    )
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    return _dense(X), y


def checked_weights(sample_weight: Any, X: Array) -> Array | None:
    """Return sample weights (N,) as an array.

    Raises:
        ValueError: their number is wrong, one is negative or not finite, or all are 0.
    """
    if sample_weight is None:
        return None
    weights: Array = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if (weights < 0).any():
        raise ValueError(f"Sample weights must not be negative, got {weights.min()}.")
    if not weights.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return weights


def _dense(X: Any) -> Array:
    """Return a checked array or sparse matrix as an array."""
    dense: Array = X.toarray() if hasattr(X, "toarray") else X
    return dense
