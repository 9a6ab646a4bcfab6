"""Losses: from the logits z of one example and its target, the loss and its gradient dz."""

import math

import numpy as np

from reference.activations import sigmoid, sigmoid_backward
from reference.layers import Array


def one_hot(label: int, classes: int) -> Array:
    """Return zeros with a 1 at `label`."""
    y = np.zeros(classes)
    y[label] = 1.0
    return y


def softmax(z: Array) -> Array:
    """Return e^z[k] / Σ e^z, with the largest logit subtracted so that no exponent is positive."""
    e: Array = np.exp(z - z.max())
    return e / np.sum(e)


def softmax_cross_entropy(z: Array, label: int) -> tuple[float, Array]:
    """Return −log softmax(z)[label] = log Σ e^z − z[label], and dz = softmax(z) − onehot."""
    shifted = z - z.max()
    loss = math.log(np.exp(shifted).sum()) - shifted[label]
    return float(loss), softmax(z) - one_hot(label, len(z))


def binary_cross_entropy(z: Array, label: int) -> tuple[float, Array]:
    """Return `multilabel_cross_entropy` with the target 1 for the label and 0 for the others."""
    return multilabel_cross_entropy(z, one_hot(label, len(z)))


def multilabel_cross_entropy(z: Array, y: Array) -> tuple[float, Array]:
    """Return −Σ_k [y log a + (1 − y) log(1 − a)] with a = sigmoid(z), and dz = a − y.

    Each term is computed as max(z, 0) − z·y + log(1 + e^−|z|).
    """
    loss = 0.0
    for k in range(len(z)):
        loss += max(z[k], 0.0) - z[k] * y[k] + math.log1p(math.exp(-abs(z[k])))
    return float(loss), sigmoid(z) - y


def quadratic(z: Array, label: int) -> tuple[float, Array]:
    """Return ½·Σ_k (a − y)² with a = sigmoid(z), and dz = (a − y)·a·(1 − a)."""
    error = sigmoid(z) - one_hot(label, len(z))
    return float(0.5 * np.sum(error**2)), sigmoid_backward(error, z)


def squared_error(z: Array, target: Array) -> tuple[float, Array]:
    """Return ½·Σ_k (z − t)² with one number t per output, and dz = z − t."""
    return float(0.5 * np.sum((z - target) ** 2)), z - target


LOSSES = {  # of a class
    "softmax_cross_entropy": softmax_cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "quadratic": quadratic,
}
NUMBER_LOSSES = {  # of one number per output
    "multilabel_cross_entropy": multilabel_cross_entropy,
    "squared_error": squared_error,
}
