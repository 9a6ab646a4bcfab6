"""Weights in Keras' layout, which has the channels of an image last."""

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Matrix: TypeAlias = NDArray[np.float32]
Arrays: TypeAlias = dict[str, NDArray[np.float32]]

HOW_TO_SAVE = 'save its arrays with np.savez("w.npz", **{w.path: w.numpy() for w in model.weights})'


def from_keras(arrays: Arrays) -> Arrays:
    """Return the arrays W1, b1, W2, … of a Keras network in the layout of this package.

    Filters (k, k, channels, filters) become (filters, channels, k, k). Keras flattens an image as
    (height, width, channels), so the rows of the first matrix after convolutions change their
    order. Biases become (1, out), which states that matrices are (in, out).

    Raises:
        ValueError: the matrix after the convolutions does not take square images.
    """
    converted: Arrays = {}
    channels = 1
    for name, array in arrays.items():
        if array.ndim == 4:
            converted[name] = array.transpose(3, 2, 0, 1)
            channels = array.shape[3]
        elif name[0] == "W":
            converted[name] = _channels_first(array, channels, name=name)
            channels = 1
        else:
            converted[name] = array.reshape(1, -1)
    return converted


def _channels_first(matrix: Matrix, channels: int, *, name: str) -> Matrix:
    """Return a matrix (H·W·channels, out) with its rows in the order (channels, H, W)."""
    rows, outputs = matrix.shape
    side = math.isqrt(rows // channels)
    if channels == 1:
        return matrix
    if side * side * channels != rows:
        raise ValueError(
            f"{name} has {rows} rows, but the layer before it returns square images of {channels} "
            "channels"
        )
    images = matrix.reshape(side, side, channels, outputs)
    return images.transpose(2, 0, 1, 3).reshape(rows, outputs)
