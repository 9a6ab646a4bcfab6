"""Maximum and average pooling and their gradients, as single operations.

Layout: images x (N, C, H, W), outputs y (N, C, OH, OW), and a tie mask of the shape of y: bit
i·size + j is set if position (i, j) of the patch receives the gradient.

The loops are written once, for any size and stride. For 2×2 patches that do not overlap, as in
every recipe, they are inlined a second time with these numbers as constants: they then unroll and
vectorize, and take an eighth of the time. A NaN in a patch makes its maximum NaN, as in NumPy.

Cost per patch: size² comparisons for the maximum and size² for the mask.
"""

from typing import Any

from numba import njit

from backends.numba.kernels.compilation import allocating_entry
from backends.numba.kernels.tiles import IMAGES_PER_TILE


@njit(inline="always")
def _max_pool2d(
    x: Any, size: int, stride: int, all_ties: bool, y: Any, mask: Any, one: Any,
    first: int, last: int,
) -> None:  # fmt: skip
    """Set y and the mask; the mask is computed in the type of `one`, which must hold 2^(size²)."""
    channels, oh, ow = y.shape[1:]
    for n in range(first * IMAGES_PER_TILE, min(last * IMAGES_PER_TILE, len(y))):
        for c in range(channels):
            for row in range(oh):
                for col in range(ow):
                    maximum = x[n, c, row * stride, col * stride]
                    for i in range(size):
                        for j in range(size):
                            value = x[n, c, row * stride + i, col * stride + j]
                            larger = (value > maximum) | (value != value)
                            maximum = value if larger else maximum
                    bits = one - one
                    bit = one
                    for i in range(size):
                        for j in range(size):
                            value = x[n, c, row * stride + i, col * stride + j]
                            hit = (value == maximum) & (all_ties | (bits < one))
                            bits = bits + bit if hit else bits
                            bit = bit + bit
                    y[n, c, row, col] = maximum
                    mask[n, c, row, col] = bits


@allocating_entry
def max_pool2d(
    x: Any, size: int, stride: int, all_ties: bool, y: Any, mask: Any, first: int, last: int
) -> None:
    """Set the maxima y and the tie mask for tiles `first` to `last` − 1 of the images x."""
    if size == 2 and stride == 2:
        # A float can hold the four bits, and a loop with one type vectorizes better than with two.
        _max_pool2d(x, 2, 2, all_ties, y, mask, x.dtype.type(1), first, last)
    else:
        _max_pool2d(x, size, stride, all_ties, y, mask, 1, first, last)


@njit(inline="always")
def _max_pool2d_backward(
    dy: Any, mask: Any, size: int, stride: int, dx: Any, first: int, last: int
) -> None:
    channels, oh, ow = dy.shape[1:]
    for n in range(first * IMAGES_PER_TILE, min(last * IMAGES_PER_TILE, len(dy))):
        for c in range(channels):
            dx[n, c] = 0
            for row in range(oh):
                for col in range(ow):
                    gradient = dy[n, c, row, col]
                    bits = mask[n, c, row, col]
                    for i in range(size):
                        for j in range(size):
                            hit = dy.dtype.type((bits >> (i * size + j)) & 1)
                            dx[n, c, row * stride + i, col * stride + j] += hit * gradient


@allocating_entry
def max_pool2d_backward(
    dy: Any, mask: Any, size: int, stride: int, dx: Any, first: int, last: int
) -> None:
    """Set dx for tiles `first` to `last` − 1 to the gradient of max-pooling."""
    if size == 2 and stride == 2:
        _max_pool2d_backward(dy, mask, 2, 2, dx, first, last)
    else:
        _max_pool2d_backward(dy, mask, size, stride, dx, first, last)


@njit(inline="always")
def _avg_pool2d(x: Any, size: int, stride: int, y: Any, first: int, last: int) -> None:
    channels, oh, ow = y.shape[1:]
    scale = y.dtype.type(1) / y.dtype.type(size * size)
    for n in range(first * IMAGES_PER_TILE, min(last * IMAGES_PER_TILE, len(y))):
        for c in range(channels):
            for row in range(oh):
                for col in range(ow):
                    total = y.dtype.type(0)
                    for i in range(size):
                        for j in range(size):
                            total += x[n, c, row * stride + i, col * stride + j]
                    y[n, c, row, col] = total * scale


@allocating_entry
def avg_pool2d(x: Any, size: int, stride: int, y: Any, first: int, last: int) -> None:
    """Set the means y for tiles `first` to `last` − 1 of the images x."""
    if size == 2 and stride == 2:
        _avg_pool2d(x, 2, 2, y, first, last)
    else:
        _avg_pool2d(x, size, stride, y, first, last)


@njit(inline="always")
def _avg_pool2d_backward(dy: Any, size: int, stride: int, dx: Any, first: int, last: int) -> None:
    channels, oh, ow = dy.shape[1:]
    scale = dx.dtype.type(1) / dx.dtype.type(size * size)
    for n in range(first * IMAGES_PER_TILE, min(last * IMAGES_PER_TILE, len(dy))):
        for c in range(channels):
            dx[n, c] = 0
            for row in range(oh):
                for col in range(ow):
                    gradient = scale * dy[n, c, row, col]
                    for i in range(size):
                        for j in range(size):
                            dx[n, c, row * stride + i, col * stride + j] += gradient


@allocating_entry
def avg_pool2d_backward(dy: Any, size: int, stride: int, dx: Any, first: int, last: int) -> None:
    """Set dx for tiles `first` to `last` − 1 to the gradient of average pooling."""
    if size == 2 and stride == 2:
        _avg_pool2d_backward(dy, 2, 2, dx, first, last)
    else:
        _avg_pool2d_backward(dy, size, stride, dx, first, last)
