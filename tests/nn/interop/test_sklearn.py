"""Networks from those of scikit-learn."""

import warnings

import numpy as np
import pytest

import mnist_accel as ma

neural_network = pytest.importorskip("sklearn.neural_network", reason="needs scikit-learn")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 7))  # not in 0…1
CLASSES = RNG.integers(0, 4, 60)
LABELS = RNG.integers(0, 2, (60, 3))


def fitted(y, kind="MLPClassifier", **settings):
    """Return a network of scikit-learn that was trained for three epochs."""
    mlp = getattr(neural_network, kind)(
        hidden_layer_sizes=(20, 10), max_iter=3, random_state=0, **settings
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged after so few epochs
        return mlp.fit(X, y)


@pytest.mark.parametrize("activation", ["relu", "logistic", "tanh", "identity"])
def test_a_network_gives_the_probabilities_of_the_classifier(activation):
    mlp = fitted(CLASSES, activation=activation)
    network = ma.Network.from_sklearn(mlp, backend="numpy")
    assert np.allclose(network.predict_proba(X), mlp.predict_proba(X), atol=1e-6)


def test_two_classes_have_one_output_the_probability_of_the_second():
    mlp = fitted(np.where(CLASSES < 2, "low", "high"))
    network = ma.Network.from_sklearn(mlp, backend="numpy")
    assert np.allclose(network.predict_proba(X), mlp.predict_proba(X)[:, 1:], atol=1e-6)
    assert np.array_equal(mlp.classes_[network.predict(X)[:, 0]], mlp.predict(X))


def test_several_labels_have_an_output_each():
    mlp = fitted(LABELS)
    network = ma.Network.from_sklearn(mlp, backend="numpy")
    assert np.allclose(network.predict_proba(X), mlp.predict_proba(X), atol=1e-6)
    assert np.array_equal(network.predict(X), mlp.predict(X))


def test_a_regressor_gives_its_numbers_and_trains_on():
    mlp = fitted(X[:, :2] * 3, "MLPRegressor")
    network = ma.Network.from_sklearn(mlp, backend="numpy")
    assert np.allclose(network.predict(X), mlp.predict(X), atol=1e-6)
    losses = ma.Trainer(network, "adam", lr=0.01).fit(X, X[:, :2] * 3, epochs=30).losses
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: neural_network.MLPClassifier(), ValueError, "MLPClassifier is not fitted"),
        (lambda: neural_network.BernoulliRBM(), TypeError, "or MLPRegressor, got BernoulliRBM$"),
        (lambda: fitted_network(), TypeError, "NetworkClassifier; its network is its attribute"),
        (lambda: changed("exp"), ValueError, "MLPClassifier, exp, have no counterpart; known are"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_the_reason(make, error, message):
    with pytest.raises(error, match=message):
        ma.Network.from_sklearn(make(), backend="numpy")


def fitted_network():
    from mnist_accel.sklearn import NetworkClassifier

    return NetworkClassifier(max_iter=1, tol=0.0, backend="numpy").partial_fit(
        X, CLASSES, classes=range(4)
    )


def changed(outputs):
    mlp = fitted(CLASSES)
    mlp.out_activation_ = outputs
    return mlp
