"""The layers, weights and loss of a network of scikit-learn."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_accel.nn.layers import Activation, Layer, Linear
from mnist_accel.nn.losses import Loss

_ACTIVATIONS = {"relu": "relu", "logistic": "sigmoid", "tanh": "tanh"}
# Kinds of losses by the activation of scikit-learn's output layer.
_LOSSES = {
    "softmax": "softmax_cross_entropy",
    "logistic": "multilabel_cross_entropy",
    "identity": "squared_error",
}


def from_mlp(mlp: Any) -> tuple[list[Layer], list[dict[str, NDArray[Any]]], Loss]:
    """Return the layers of a fitted network, the parameters of each layer, and the loss.

    Raises:
        TypeError: it is neither an `MLPClassifier` nor an `MLPRegressor`.
        ValueError: it is not fitted, or its outputs have no counterpart.
    """
    name = type(mlp).__name__
    if not {cls.__name__ for cls in type(mlp).__mro__} & {"MLPClassifier", "MLPRegressor"}:
        hint = "; its network is its attribute network_" if hasattr(mlp, "network_") else ""
        raise TypeError(f"expected an MLPClassifier or MLPRegressor, got {name}{hint}")
    if not hasattr(mlp, "coefs_"):
        raise ValueError(f"the {name} is not fitted; call its fit first")
    if mlp.out_activation_ not in _LOSSES:
        raise ValueError(
            f"the outputs of the {name}, {mlp.out_activation_}, have no counterpart; known are "
            f"{', '.join(_LOSSES)}"
        )
    layers: list[Layer] = []
    weights: list[dict[str, NDArray[Any]]] = []
    for coefficients, intercept in zip(mlp.coefs_, mlp.intercepts_, strict=True):
        if layers and mlp.activation in _ACTIVATIONS:  # the identity is no layer
            layers.append(Activation(_ACTIVATIONS[mlp.activation]))
            weights.append({})
        layers.append(Linear(len(intercept)))
        weights.append({"W": np.asarray(coefficients), "b": np.asarray(intercept)})
    return layers, weights, Loss(_LOSSES[mlp.out_activation_])
