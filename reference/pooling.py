"""Pooling of one example, with its gradients; `stride` defaults to `size`."""

import numpy as np

from reference.layers import Array, starts


def max_pool2d(x: Array, size: int = 2, stride: int | None = None) -> Array:
    """Return the largest value of each patch."""
    stride = size if stride is None else stride
    channels, height, width = x.shape
    rows, columns = starts(height, size, stride), starts(width, size, stride)
    y = np.zeros((channels, len(rows), len(columns)))
    for k in range(channels):
        for i, r in enumerate(rows):
            for j, c in enumerate(columns):
                y[k, i, j] = x[k, r : r + size, c : c + size].max()
    return y


def max_pool2d_backward(
    dy: Array, x: Array, size: int = 2, stride: int | None = None, ties: str = "first"
) -> Array:
    """Return dx: dy at the maximum of its patch.

    If several positions equal the maximum, `ties="first"` adds dy to the first of them in row-major
    order, and `ties="all"` adds dy to each of them.
    """
    if ties not in ("first", "all"):
        raise ValueError(f"ties is {ties!r}, expected 'first' or 'all'")
    stride = size if stride is None else stride
    channels, height, width = x.shape
    dx = np.zeros_like(x)
    for k in range(channels):
        for i, r in enumerate(starts(height, size, stride)):
            for j, c in enumerate(starts(width, size, stride)):
                patch = x[k, r : r + size, c : c + size]
                if ties == "all":
                    dpatch = dx[k, r : r + size, c : c + size]
                    dpatch[patch == patch.max()] += dy[k, i, j]
                else:
                    down, across = divmod(int(patch.argmax()), size)  # argmax finds the first
                    dx[k, r + down, c + across] += dy[k, i, j]
    return dx


def avg_pool2d(x: Array, size: int = 2, stride: int | None = None) -> Array:
    """Return the mean of each patch."""
    stride = size if stride is None else stride
    channels, height, width = x.shape
    rows, columns = starts(height, size, stride), starts(width, size, stride)
    y = np.zeros((channels, len(rows), len(columns)))
    for k in range(channels):
        for i, r in enumerate(rows):
            for j, c in enumerate(columns):
                y[k, i, j] = x[k, r : r + size, c : c + size].sum() / size**2
    return y


def avg_pool2d_backward(dy: Array, x: Array, size: int = 2, stride: int | None = None) -> Array:
    """Return dx: dy / size² at each of the size² positions of its patch."""
    stride = size if stride is None else stride
    channels, height, width = x.shape
    dx = np.zeros_like(x)
    for k in range(channels):
        for i, r in enumerate(starts(height, size, stride)):
            for j, c in enumerate(starts(width, size, stride)):
                dx[k, r : r + size, c : c + size] += dy[k, i, j] / size**2
    return dx
