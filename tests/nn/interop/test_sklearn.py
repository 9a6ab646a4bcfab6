"""Networks from classifiers of scikit-learn."""

import warnings

import numpy as np
import pytest

import mnist_accel as ma

neural_network = pytest.importorskip("sklearn.neural_network", reason="needs scikit-learn")


def fitted(classes=10, **settings):
    data = ma.load_dataset("digits")
    chosen = data.t_train < classes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged after so few iterations
        mlp = neural_network.MLPClassifier((20, 10), max_iter=3, random_state=0, **settings)
        return mlp.fit(data.x_train[chosen].reshape(-1, 784) / 255, data.t_train[chosen])


@pytest.mark.parametrize("activation", ["relu", "logistic", "tanh"])
def test_a_network_gives_the_probabilities_of_the_classifier(activation):
    mlp = fitted(activation=activation)
    network = ma.Network.from_sklearn(mlp, backend="numpy")
    features = ma.load_dataset("digits").x_test[:100].reshape(-1, 784) / 255
    expected = mlp.predict_proba(features)
    assert np.allclose(network.predict_proba(features), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: neural_network.MLPClassifier(), ValueError, "is not fitted"),
        (lambda: neural_network.MLPRegressor(), TypeError, "expected an MLPClassifier, got MLPReg"),
        (lambda: fitted(activation="identity"), ValueError, "'identity' has no counterpart"),
        (lambda: fitted(classes=2), ValueError, "are logistic; only a softmax"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_the_reason(make, error, message):
    with pytest.raises(error, match=message):
        ma.Network.from_sklearn(make(), backend="numpy")
