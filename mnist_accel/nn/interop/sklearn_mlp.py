"""The layers and weights of a classifier of scikit-learn."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_accel.nn.layers import Activation, Layer, Linear

_ACTIVATIONS = {"relu": "relu", "logistic": "sigmoid", "tanh": "tanh"}


def from_mlp(mlp: Any) -> tuple[list[Layer], list[dict[str, NDArray[Any]]]]:
    """Return the layers of a fitted `MLPClassifier`, and the parameters of each layer.

    Raises:
        TypeError: it is not an `MLPClassifier`.
        ValueError: it is not fitted, has two classes or several labels, or its activation is
            "identity".
    """
    if type(mlp).__name__ != "MLPClassifier":
        raise TypeError(f"expected an MLPClassifier, got {type(mlp).__name__}")
    if not hasattr(mlp, "coefs_"):
        raise ValueError("the MLPClassifier is not fitted; call its fit first")
    if mlp.out_activation_ != "softmax":
        raise ValueError(
            f"the outputs of the MLPClassifier are {mlp.out_activation_}; only a softmax over at "
            "least three classes can be converted"
        )
    if mlp.activation not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise ValueError(f"the activation {mlp.activation!r} has no counterpart; known are {known}")
    layers: list[Layer] = []
    weights: list[dict[str, NDArray[Any]]] = []
    for coefficients, intercept in zip(mlp.coefs_, mlp.intercepts_, strict=True):
        layers += [Linear(len(intercept)), Activation(_ACTIVATIONS[mlp.activation])]
        weights += [{"W": np.asarray(coefficients), "b": np.asarray(intercept)}, {}]
    return layers[:-1], weights[:-1]
