"""A first linear layer that touches only the pixels that are not 0.

On MNIST four pixels of five are 0. An image is a list of columns, ascending, and of values, 0…255
or 0…1. A product with the weights (in, out) adds up the rows of the weights that the columns name,
and the gradient of the weights adds to these rows alone. Rows of weights are filled up to whole
vectors.

Threads share the images forward. Backward they share the rows of the weights: lists are cut at the
same columns for all images, into groups that are equally full. So no two threads write to the same
place, and a row receives the images in their order.

Cost per image: 2·n·out floating-point operations forward and backward, n pixels that are not 0.
"""

from typing import Any

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.vectors import LANES, add_to_rows, sum_of_rows

_sum_1, _sum_2, _sum_4, _sum_7, _sum_8 = (sum_of_rows(n) for n in (1, 2, 4, 7, 8))
_add_1, _add_2, _add_4, _add_7, _add_8 = (add_to_rows(n) for n in (1, 2, 4, 7, 8))


@kernel
def add_sparse_product(
    y: Any,
    weights: Any,
    weight: int,
    stride: int,
    columns: Any,
    values: Any,
    first: int,
    last: int,
) -> None:
    """Add to one row `y` the product of a list with weights.

    Args:
        y: whole vectors.
        weights: in which those of the layer begin at `weight`.
        weight: likewise.
        stride: from one row of the weights to the next.
        columns: in which the list lies from `first` to `last` − 1.
        values: likewise.
        first: of the list.
        last: one past its end.
    """
    width = len(y)
    at = 0
    while at < width:
        left = (width - at) // LANES
        if left >= 8:
            _sum_8(y, at, weights, weight + at, stride, columns, values, first, last)
            at += 8 * LANES
        elif left == 7:
            _sum_7(y, at, weights, weight + at, stride, columns, values, first, last)
            at += 7 * LANES
        elif left >= 4:
            _sum_4(y, at, weights, weight + at, stride, columns, values, first, last)
            at += 4 * LANES
        elif left >= 2:
            _sum_2(y, at, weights, weight + at, stride, columns, values, first, last)
            at += 2 * LANES
        else:
            _sum_1(y, at, weights, weight + at, stride, columns, values, first, last)
            at += LANES


@kernel
def add_sparse_outer(
    target: Any, weight: int, columns: Any, values: Any, first: int, last: int, dy: Any, scale: Any
) -> None:
    """Add scale · x dyᵀ of one image and one row to the matrix that begins at `weight`."""
    width = len(dy)
    at = 0
    while at < width:
        left = (width - at) // LANES
        place = weight + at
        if left >= 8:
            _add_8(target, place, width, columns, values, first, last, dy, at, scale)
            at += 8 * LANES
        elif left == 7:
            _add_7(target, place, width, columns, values, first, last, dy, at, scale)
            at += 7 * LANES
        elif left >= 4:
            _add_4(target, place, width, columns, values, first, last, dy, at, scale)
            at += 4 * LANES
        elif left >= 2:
            _add_2(target, place, width, columns, values, first, last, dy, at, scale)
            at += 2 * LANES
        else:
            _add_1(target, place, width, columns, values, first, last, dy, at, scale)
            at += LANES
