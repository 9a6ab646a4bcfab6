"""With the same order of the samples, training follows that of scikit-learn's networks."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

from mnist_accel.sklearn import NetworkClassifier, NetworkRegressor
from tests.sklearn.conftest import Data

SETTINGS = {"random_state": 3, "max_iter": 30, "hidden_layer_sizes": (9, 5)}
# scikit-learn adds the epsilon of Adam before the bias correction.
EPSILON = {"epsilon": 1e-14}


@pytest.fixture(autouse=True)
def few_epochs() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def targets(kind: str, data: Data) -> np.ndarray[Any, Any]:
    """Return targets of a kind for the samples of a data set."""
    x, y = data
    return {
        "classes": np.array(["one", "two", "three"])[y],
        "two classes": y > 0,
        "labels": np.stack([y > 0, y < 2, x[:, 0] > 0], axis=1).astype(int),
        "number": x @ np.arange(4),
        "numbers": x[:, :2] * [3, 4],
    }[kind]


def pair(kind: str, backend: str = "numpy", **settings: Any) -> tuple[Any, Any]:
    """Return an estimator of this project and one of scikit-learn with the same settings."""
    settings = {**SETTINGS, **EPSILON, **settings}
    if kind.startswith("number"):
        return NetworkRegressor(**settings, backend=backend), MLPRegressor(**settings)
    return NetworkClassifier(**settings, backend=backend), MLPClassifier(**settings)


def assert_same(ours: Any, theirs: Any, x: np.ndarray[Any, Any], *, scale: float = 1.0) -> None:
    """Compare losses, weights, results and predictions; `scale` is the ratio of the losses."""
    np.testing.assert_allclose(ours.loss_curve_, scale * np.array(theirs.loss_curve_), rtol=1e-6)
    for name in ("coefs_", "intercepts_"):
        for got, want in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(ours, name) == getattr(theirs, name), name
    if ours.predict(x).dtype.kind == "f":
        np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-4, atol=1e-6)
        return
    assert np.array_equal(ours.classes_, theirs.classes_)
    assert np.array_equal(ours.predict(x), theirs.predict(x))
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-6)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("kind", ["classes", "two classes", "labels", "number"])
def test_every_kind_of_target(blobs: Data, kind: str, solver: str) -> None:
    ours, theirs = pair(kind, solver=solver, alpha=0.5)
    y = targets(kind, blobs)
    assert_same(ours.fit(blobs[0], y), theirs.fit(blobs[0], y), blobs[0])


def test_regression_of_several_targets_sums_their_losses(blobs: Data) -> None:
    """scikit-learn reports the mean over the targets, but follows the gradient of the sum."""
    ours, theirs = pair("numbers", alpha=0.0)
    y = targets("numbers", blobs)
    assert_same(ours.fit(blobs[0], y), theirs.fit(blobs[0], y), blobs[0], scale=2)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_every_activation(blobs: Data, activation: str) -> None:
    ours, theirs = pair("classes", activation=activation)
    assert_same(ours.fit(*blobs), theirs.fit(*blobs), blobs[0])


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_batches_in_the_order_of_the_samples(blobs: Data, backend: str) -> None:
    ours, theirs = pair("classes", backend, shuffle=False, batch_size=16, alpha=0.1)
    assert_same(ours.fit(*blobs), theirs.fit(*blobs), blobs[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.0},
        {"nesterovs_momentum": False},
        {"learning_rate": "invscaling", "momentum": 0.0, "power_t": 0.1},
        {"learning_rate": "adaptive", "momentum": 0.0, "tol": 0.05, "n_iter_no_change": 2},
    ],
    ids=str,
)
def test_every_setting_of_sgd(blobs: Data, settings: dict[str, Any]) -> None:
    ours, theirs = pair("classes", solver="sgd", learning_rate_init=0.1, **settings)
    assert_same(ours.fit(*blobs), theirs.fit(*blobs), blobs[0])


@pytest.mark.parametrize("kind", ["classes", "labels", "number"])
def test_early_stopping_holds_out_the_same_samples(blobs: Data, kind: str) -> None:
    settings = {"early_stopping": True, "learning_rate_init": 0.03, "n_iter_no_change": 3}
    ours, theirs = pair(kind, max_iter=200, tol=0.01, **settings)
    y = targets(kind, blobs)
    assert_same(ours.fit(blobs[0], y), theirs.fit(blobs[0], y), blobs[0])
    np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, rtol=1e-6)
    assert ours.best_validation_score_ == pytest.approx(theirs.best_validation_score_)
    assert ours.best_loss_ is theirs.best_loss_ is None
    assert ours.n_iter_ < 200


def test_training_ends_in_the_same_epoch(blobs: Data) -> None:
    ours, theirs = pair("classes", max_iter=500, tol=0.003, learning_rate_init=0.01)
    assert_same(ours.fit(*blobs), theirs.fit(*blobs), blobs[0])
    assert ours.best_loss_ == pytest.approx(theirs.best_loss_)
    assert ours.n_iter_ < 500


def test_warm_start_and_partial_fit_continue_alike(blobs: Data) -> None:
    ours, theirs = pair("classes", max_iter=5, warm_start=True)
    for _ in range(3):
        assert_same(ours.fit(*blobs), theirs.fit(*blobs), blobs[0])
    assert len(ours.loss_curve_) == 15
    ours, theirs = pair("classes")
    for _ in range(3):
        for estimator in (ours, theirs):
            estimator.partial_fit(blobs[0][:50], blobs[1][:50], classes=[0, 1, 2])
            estimator.partial_fit(blobs[0][50:], blobs[1][50:])
        assert_same(ours, theirs, blobs[0])
