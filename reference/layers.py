"""Layers of one example, with their gradients."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def linear(x: Array, W: Array, b: Array) -> Array:
    """Return y with y[k] = Σ_i x[i]·W[i, k] + b[k]."""
    y = np.zeros(W.shape[1])
    for k in range(W.shape[1]):
        y[k] = np.sum(x * W[:, k]) + b[k]
    return y


def linear_backward(dy: Array, x: Array, W: Array) -> tuple[Array, Array, Array]:
    """Return dx[i] = Σ_k dy[k]·W[i, k], dW[i, k] = x[i]·dy[k] and db[k] = dy[k]."""
    dx, dW, db = np.zeros_like(x), np.zeros_like(W), np.zeros(W.shape[1])
    for k in range(W.shape[1]):
        dx += dy[k] * W[:, k]
        dW[:, k] = dy[k] * x
        db[k] = dy[k]
    return dx, dW, db


def starts(length: int, size: int, stride: int) -> range:
    """Return the first index of each patch; an incomplete last patch is dropped."""
    return range(0, length - size + 1, stride)


def pad(x: Array, padding: int) -> Array:
    """Return the channels with `padding` rows and columns of zeros on every side."""
    channels, height, width = x.shape
    padded = np.zeros((channels, height + 2 * padding, width + 2 * padding))
    padded[:, padding : padding + height, padding : padding + width] = x
    return padded


def conv2d(
    x: Array, filters: Array, bias: Array | None, stride: int = 1, padding: int = 0
) -> Array:
    """Return y[o, i, j] = Σ patch(i, j)·filters[o] + bias[o]; filters are not flipped.

    patch(i, j) is the part of the padded input with its upper left corner at (i·stride, j·stride).
    """
    padded = pad(x, padding)
    out_channels, _, kh, kw = filters.shape
    rows = starts(padded.shape[1], kh, stride)
    columns = starts(padded.shape[2], kw, stride)
    y = np.zeros((out_channels, len(rows), len(columns)))
    for i, r in enumerate(rows):
        for j, c in enumerate(columns):
            patch = padded[:, r : r + kh, c : c + kw].copy()
            for o in range(out_channels):
                y[o, i, j] = np.vdot(patch, filters[o])  # Σ over in_channels, kh and kw
    if bias is not None:
        for o in range(out_channels):
            y[o] += bias[o]
    return y


def conv2d_backward(
    dy: Array, x: Array, filters: Array, stride: int = 1, padding: int = 0
) -> tuple[Array, Array, Array]:
    """Return dx, dfilters and dbias; a layer without bias ignores the last.

    - dfilters[o, k, u, v] = Σ_ij dy[o, i, j]·x[k, i·stride + u, j·stride + v]
    - dx[k, i·stride + u, j·stride + v] += dy[o, i, j]·filters[o, k, u, v]
    - dbias[o] = Σ_ij dy[o, i, j]

    with x and dx padded.
    """
    padded = pad(x, padding)
    dpadded, dfilters = np.zeros_like(padded), np.zeros_like(filters)
    dbias = np.zeros(len(filters))
    out_channels, in_channels, kh, kw = filters.shape
    _, rows, columns = dy.shape
    for o in range(out_channels):
        dbias[o] = dy[o].sum()
        for k in range(in_channels):
            for u in range(kh):
                for v in range(kw):
                    # The pixels under this tap at all output positions.
                    down = slice(u, u + stride * (rows - 1) + 1, stride)
                    across = slice(v, v + stride * (columns - 1) + 1, stride)
                    dfilters[o, k, u, v] = np.vdot(dy[o], padded[k, down, across])
                    dpadded[k, down, across] += dy[o] * filters[o, k, u, v]
    height, width = x.shape[1:]
    dx = dpadded[:, padding : padding + height, padding : padding + width]
    return dx, dfilters, dbias
