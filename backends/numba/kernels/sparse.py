"""A linear layer whose input is sparse.

Four of five pixels of MNIST are 0. The product of a sparse row with the weights (inputs, outputs)
adds up the rows of the weights that the nonzero pixels select; the gradient of the weights adds to
these rows alone. Rows of the weights are padded to whole vectors.

Forward, threads divide the images. Backward, they divide the rows of the weights: each thread
computes the column groups of all images (see `csr`) that belong to its rows. Two threads never
write to the same row, and a row receives the images in their order.

Cost per image: 2·n·outputs floating-point operations forward and backward for n nonzero pixels.
"""

from typing import Any

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.simd.emitter import LANES
from backends.numba.kernels.simd.sparse import gather_axpy, scatter_axpy
from backends.numba.kernels.views import pointer

_gather_1, _gather_2, _gather_4, _gather_7, _gather_8 = (gather_axpy(n) for n in (1, 2, 4, 7, 8))
_scatter_1, _scatter_2, _scatter_4, _scatter_7, _scatter_8 = (
    scatter_axpy(n) for n in (1, 2, 4, 7, 8)
)


@kernel
def add_sparse_product(
    y: Any, weights: Any, weight: int, stride: int, indices: Any, data: Any
) -> None:
    """Add the product of a sparse row with weights to y (outputs,), whole vectors.

    Args:
        y: receives the sum.
        weights: parameters; those of the layer begin at `weight`.
        weight: offset.
        stride: distance between rows of the weights.
        indices: columns of the sparse row.
        data: values of the sparse row.
    """
    width, count = len(y), len(indices)
    columns, values = pointer(indices, 0), pointer(data, 0)
    at = 0
    while at < width:
        left = (width - at) // LANES
        ys, table = pointer(y, at), pointer(weights, weight + at)
        if left >= 8:
            _gather_8(ys, table, stride, columns, values, count)
            at += 8 * LANES
        elif left == 7:
            _gather_7(ys, table, stride, columns, values, count)
            at += 7 * LANES
        elif left >= 4:
            _gather_4(ys, table, stride, columns, values, count)
            at += 4 * LANES
        elif left >= 2:
            _gather_2(ys, table, stride, columns, values, count)
            at += 2 * LANES
        else:
            _gather_1(ys, table, stride, columns, values, count)
            at += LANES


@kernel
def add_sparse_outer(
    gradient: Any, weight: int, indices: Any, data: Any, dy: Any, scale: Any
) -> None:
    """Add scale · xᵀ dy, for a sparse row x, to the matrix that begins at `weight`.

    Args:
        gradient: gradient of the parameters.
        weight: offset.
        indices: columns of the sparse row.
        data: values of the sparse row.
        dy: (outputs,), whole vectors.
        scale: factor.
    """
    width, count = len(dy), len(indices)
    columns, values = pointer(indices, 0), pointer(data, 0)
    at = 0
    while at < width:
        left = (width - at) // LANES
        table, dys = pointer(gradient, weight + at), pointer(dy, at)
        if left >= 8:
            _scatter_8(table, width, columns, values, count, dys, scale)
            at += 8 * LANES
        elif left == 7:
            _scatter_7(table, width, columns, values, count, dys, scale)
            at += 7 * LANES
        elif left >= 4:
            _scatter_4(table, width, columns, values, count, dys, scale)
            at += 4 * LANES
        elif left >= 2:
            _scatter_2(table, width, columns, values, count, dys, scale)
            at += 2 * LANES
        else:
            _scatter_1(table, width, columns, values, count, dys, scale)
            at += LANES
