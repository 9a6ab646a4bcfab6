"""Maximum and average pooling and their gradients, as single operations.

Layout: images x (N, C, H, W), outputs y (N, C, OH, OW), and a tie mask of the shape of y: bit
i·size + j is set if position (i, j) of the patch receives the gradient.

The loops are written for any size and stride. For 2×2 patches that do not overlap, as in every
recipe, maximum pooling has kernels of its own, which compute up to eight neighbors of a row at
once. The loops of average pooling are inlined a second time with these numbers as constants: they
then unroll. A NaN in a patch makes its maximum NaN, as in NumPy.

Cost per patch: size² comparisons for the maximum and size² for the mask.
"""

from typing import Any

from numba import njit

from backends.numba.kernels.compilation import allocating_entry, entry
from backends.numba.kernels.simd.pooling import max_pool_rows, max_pool_rows_backward
from backends.numba.kernels.tiles import IMAGES_PER_TILE
from backends.numba.kernels.views import fill_zero, pointer, view

# For rows of at least 8, 4 and 1 patches.
_pool_8, _pool_4, _pool_1 = (max_pool_rows(count) for count in (8, 4, 1))
_pool_8_backward, _pool_4_backward, _pool_1_backward = (
    max_pool_rows_backward(count) for count in (8, 4, 1)
)


@entry
def max_pool_2x2(x: Any, all_ties: bool, y: Any, mask: Any, first: int, last: int) -> None:
    """Set the maxima y and the tie mask of 2×2 patches that do not overlap.

    Args:
        x: images.
        all_ties: whether all positions that equal the maximum have their bit set.
        y: maxima.
        mask: tie mask, uint8.
        first: first tile of the images.
        last: end of the tiles.
    """
    channels, rows, columns = y.shape[1:]
    height, width = x.shape[2:]
    every = 1 if all_ties else 0
    for image in range(
        first * IMAGES_PER_TILE * channels, min(last * IMAGES_PER_TILE, len(y)) * channels
    ):
        source, place = pointer(x, image * height * width), image * rows * columns
        target, ties = pointer(y, place), pointer(mask, place)
        if columns >= 8:
            _pool_8(target, ties, source, width, rows, columns, every)
        elif columns >= 4:
            _pool_4(target, ties, source, width, rows, columns, every)
        else:
            _pool_1(target, ties, source, width, rows, columns, every)


@entry
def max_pool_2x2_backward(dy: Any, mask: Any, dx: Any, first: int, last: int) -> None:
    """Set dx for tiles `first` to `last` − 1 to the gradient of `max_pool_2x2`."""
    channels, rows, columns = dy.shape[1:]
    height, width = dx.shape[2:]
    for image in range(
        first * IMAGES_PER_TILE * channels, min(last * IMAGES_PER_TILE, len(dy)) * channels
    ):
        target, place = pointer(dx, image * height * width), image * rows * columns
        gradient, ties = pointer(dy, place), pointer(mask, place)
        if height != 2 * rows or width != 2 * columns:
            fill_zero(view(target, 0, height * width))
        if columns >= 8:
            _pool_8_backward(target, width, gradient, ties, rows, columns)
        elif columns >= 4:
            _pool_4_backward(target, width, gradient, ties, rows, columns)
        else:
            _pool_1_backward(target, width, gradient, ties, rows, columns)


@allocating_entry
def max_pool2d(
    x: Any, size: int, stride: int, all_ties: bool, y: Any, mask: Any, first: int, last: int
) -> None:
    """Set the maxima y and the tie mask for tiles `first` to `last` − 1 of the images x."""
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
                    bits = 0
                    for i in range(size):
                        for j in range(size):
                            value = x[n, c, row * stride + i, col * stride + j]
                            if value == maximum and (all_ties or bits == 0):
                                bits |= 1 << (i * size + j)
                    y[n, c, row, col] = maximum
                    mask[n, c, row, col] = bits


@allocating_entry
def max_pool2d_backward(
    dy: Any, mask: Any, size: int, stride: int, dx: Any, first: int, last: int
) -> None:
    """Set dx for tiles `first` to `last` − 1 to the gradient of max-pooling."""
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
