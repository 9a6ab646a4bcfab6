"""Plain Python versions of the kernels that are hard to read: read these first.

Each function computes the same as the kernel with its name, and its parameters have the same names.
An array takes the place of a pointer, and `width` the place of `vectors`·lanes. The functions are
not compiled. Only the tests call them, to compare them with the kernels.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# ------------------------------------------------------------------------------------ simd/gemm.py


def gemm_outer(
    y: Array, y_stride: int, x: Array, x_row: int, x_column: int, w: Array, w_stride: int,
    rows: int, width: int, count: int,
) -> None:  # fmt: skip
    """Add a product of matrices to y."""
    for r in range(rows):
        for k in range(count):
            for lane in range(width):
                y[r * y_stride + lane] += x[r * x_row + k * x_column] * w[k * w_stride + lane]


def gemm_dot(
    y: Array, y_stride: int, x: Array, x_stride: int, w: Array, w_stride: int,
    rows: int, columns: int, count: int,
) -> None:  # fmt: skip
    """Set y to x wᵀ; `count` is the length of the rows of x and w."""
    for r in range(rows):
        for c in range(columns):
            total = 0.0
            for k in range(count):
                total += x[r * x_stride + k] * w[c * w_stride + k]
            y[r * y_stride + c] = total


# ---------------------------------------------------------------------------------- simd/sparse.py


def gather_axpy(
    y: Array, table: Array, stride: int, width: int, indices: Array, data: Array, count: int
) -> None:
    """Add to y the rows of a table that a sparse vector selects."""
    for k in range(count):
        for lane in range(width):
            y[lane] += data[k] * table[indices[k] * stride + lane]


def scatter_axpy(
    table: Array, stride: int, width: int, indices: Array, data: Array, count: int,
    x: Array, scale: float,
) -> None:  # fmt: skip
    """Add multiples of x to the rows of a table that a sparse vector selects."""
    for k in range(count):
        for lane in range(width):
            table[indices[k] * stride + lane] += scale * data[k] * x[lane]


# ------------------------------------------------------------------------------------ simd/conv.py


def add_patches(
    y: Array, y_row: int, x: Array, x_row: int, factors: Array, offsets: Array, stride: int,
    count: int, rows: int, width: int,
) -> None:  # fmt: skip
    """Add multiples of `count` patches of x to y; `offsets` has the offsets of the patches."""
    for r in range(rows):
        for k in range(count):
            for lane in range(width):
                value = x[r * x_row + offsets[k * stride] + lane]
                y[r * y_row + lane] += factors[k * stride] * value


def sum_of_rows(y: Array, x: Array, width: int, count: int) -> None:
    """Add the rows of x to y."""
    for k in range(count):
        for lane in range(width):
            y[lane] += x[k * width + lane]


# ----------------------------------------------------------------------------- simd/conv_planes.py


def conv_planes(
    y: Array, y_row: int, bias: Array, w: Array, x: Array, offsets: Array,
    rows: int, count: int, width: int,
) -> None:  # fmt: skip
    """Set the planes of outputs of one image; `offsets` has the offsets of the taps."""
    for r in range(rows):
        for lane in range(width):
            y[r * y_row + lane] = bias[r]
            for k in range(count):
                y[r * y_row + lane] += w[r * count + k] * x[offsets[k] + lane]


def conv_planes_wgrad(
    dw: Array, dy: Array, dy_row: int, x: Array, x_image: int, offsets: Array,
    rows: int, count: int, width: int, images: int,
) -> None:  # fmt: skip
    """Add the gradient of the filters of `conv_planes`, from several images."""
    for n in range(images):
        for r in range(rows):
            for k in range(count):
                for lane in range(width):
                    value = x[n * x_image + offsets[k] + lane]
                    dw[r * count + k] += dy[(n * rows + r) * dy_row + lane] * value


# --------------------------------------------------------------------------- fused_convolution.py


def max_pool_2x2(patch: Array, *, all_ties: bool) -> tuple[Any, int]:
    """Return the maximum of a patch (2, 2) and the tie mask."""
    maximum = patch.max()
    bits = 0
    for bit, value in enumerate(patch.ravel()):
        if value == maximum and (all_ties or bits == 0):
            bits |= 1 << bit
    return maximum, bits


def conv2d(
    x: Array, filters: Array, bias: Array, *, pools: bool, all_ties: bool
) -> tuple[Array, NDArray[np.int64]]:
    """Return the convolution of one image with its tie mask, pooled or not.

    Args:
        x: padded image (H, W, C).
        filters: (O, C, k, k).
        bias: (O,).
        pools: whether patches of 2×2 outputs are pooled to their maximum.
        all_ties: whether every position that equals the maximum gets its bit in the mask.
    """
    side = filters.shape[2]
    height, width, out = x.shape[0] - side + 1, x.shape[1] - side + 1, len(filters)
    conv = np.empty((height, width, out), x.dtype)
    for r, c, o in np.ndindex(height, width, out):
        patch = x[r : r + side, c : c + side].transpose(2, 0, 1)
        conv[r, c, o] = bias[o] + (filters[o] * patch).sum()
    if not pools:
        return conv, np.ones(conv.shape, np.int64)
    y = np.empty((height // 2, width // 2, out), x.dtype)
    mask = np.empty(y.shape, np.int64)
    for r, c, o in np.ndindex(*y.shape):
        patch = conv[2 * r : 2 * r + 2, 2 * c : 2 * c + 2, o]
        y[r, c, o], mask[r, c, o] = max_pool_2x2(patch, all_ties=all_ties)
    return y, mask


def conv2d_backward(
    dy: Array, mask: NDArray[np.int64], x: Array, filters: Array, *, pools: bool
) -> tuple[Array, Array, Array]:
    """Return the gradients of the padded image, the filters and the bias; dy is that of y.

    Each output passes its gradient to the positions in its tie mask. Each position passes it to the
    patch of the image and the filter from which it was computed.
    """
    dx, dfilters, dbias = np.zeros_like(x), np.zeros_like(filters), np.zeros(len(filters), x.dtype)
    side, stride = filters.shape[2], 2 if pools else 1
    for r, c, o in np.ndindex(*dy.shape):
        for position in range(4):
            if (mask[r, c, o] >> position) & 1:
                i, j = r * stride + position // 2, c * stride + position % 2
                patch = np.s_[i : i + side, j : j + side]
                dx[patch] += dy[r, c, o] * filters[o].transpose(1, 2, 0)
                dfilters[o] += dy[r, c, o] * x[patch].transpose(2, 0, 1)
                dbias[o] += dy[r, c, o]
    return dx, dfilters, dbias


# --------------------------------------------------------------------------------------- layout.py


def pack_filters(filters: Array, *, lanes: int) -> Array:
    """Return filters (O, C, k, k) in packed order: channel tile, row, column, channel, lane.

    Args:
        filters: the weights of a convolution.
        lanes: output channels of a channel tile.
    """
    out, channels, side, _ = filters.shape
    packed = np.zeros((-(-out // lanes), side, side, channels, lanes), filters.dtype)
    for o, c, i, j in np.ndindex(*filters.shape):
        packed[o // lanes, i, j, c, o % lanes] = filters[o, c, i, j]
    return packed.ravel()


def pack_linear(weights: Array, *, shape: tuple[int, int, int], lanes: int, size: int) -> Array:
    """Return linear weights (inputs, outputs) in packed order: a padded row for each output.

    Args:
        weights: inputs are in the order of the flattened shape.
        shape: channels, height and width of the input.
        lanes: number of channels of the input, including unused lanes.
        size: length of a row.
    """
    channels, height, width = shape
    packed = np.zeros((weights.shape[1], size), weights.dtype)
    for c, r, s in np.ndindex(channels, height, width):
        packed[:, (r * width + s) * lanes + c] = weights[(c * height + r) * width + s]
    return packed.ravel()
