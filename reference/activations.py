"""Element-wise activations, with their gradients as functions of the input."""

import numpy as np

from reference.layers import Array


def relu(x: Array) -> Array:
    """Return max(x, 0)."""
    return np.where(x > 0, x, 0.0)


def relu_backward(dy: Array, x: Array) -> Array:
    """Return dy where x > 0, and 0 elsewhere."""
    return np.where(x > 0, dy, 0.0)


def sigmoid(x: Array) -> Array:
    """Return 1/(1 + e⁻ˣ), for x < 0 as eˣ/(1 + eˣ), so that the exponent is never positive."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def sigmoid_backward(dy: Array, x: Array) -> Array:
    """Return dy·a·(1 − a), with 1 − a = sigmoid(−x), which does not round to 0 for large x."""
    return dy * sigmoid(x) * sigmoid(-x)


def tanh(x: Array) -> Array:
    """Return the hyperbolic tangent of x."""
    return np.tanh(x)


def tanh_backward(dy: Array, x: Array) -> Array:
    """Return dy·(1 − tanh² x)."""
    dx: Array = dy * (1 - np.tanh(x) ** 2)
    return dx


ACTIVATIONS = {"relu": relu, "sigmoid": sigmoid, "tanh": tanh}
ACTIVATIONS_BACKWARD = {"relu": relu_backward, "sigmoid": sigmoid_backward, "tanh": tanh_backward}
