"""Linear layers: matrix products in register tiles.

Layout: inputs x (N, inputs), weights (outputs, inputs), outputs y (N, outputs). Rows of x and y are
padded to whole vectors with zeros. Every product runs along the inputs, the longest dimension in
small networks: forward as dot products, backward as sums of rows.

A BLAS library is as fast for large matrices. For small ones its preparation takes longer than the
arithmetic: for 32 × 1352 by 1352 × 10, OpenBLAS takes twice as long.

Cost per image: 2·inputs·outputs floating-point operations forward, the same for the gradient of the
weights, the same for the gradient of the inputs.
"""

from typing import Any

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.simd.emitter import LANES
from backends.numba.kernels.simd.gemm import gemm_dot_tile, gemm_outer_tile
from backends.numba.kernels.views import fill_zero, part, pointer, table

# Tiles whose sums fit the registers, and smaller ones for the edges. Five columns, because typical
# layers have 10, 30, 50 or 120 outputs.
_dot_2x5, _dot_2x1, _dot_1x5, _dot_1x1 = (
    gemm_dot_tile(rows, columns) for rows, columns in ((2, 5), (2, 1), (1, 5), (1, 1))
)
_outer_5x2, _outer_1x2, _outer_5x1, _outer_1x1 = (
    gemm_outer_tile(rows, vectors) for rows, vectors in ((5, 2), (1, 2), (5, 1), (1, 1))
)


@kernel
def linear(x: Any, packed: Any, weight: int, outputs: int, y: Any) -> None:
    """Set y to x Wᵀ, where W (outputs, inputs) begins at `weight` in `packed`."""
    inputs, y_stride = x.shape[1], y.shape[1]
    vectors = inputs // LANES
    n = 0
    while n < len(x):
        pair = len(x) - n >= 2
        xs = pointer(x, n * inputs)
        o = 0
        while o < outputs:
            five = outputs - o >= 5
            ys, w = pointer(y, n * y_stride + o), pointer(packed, weight + o * inputs)
            if pair and five:
                _dot_2x5(ys, y_stride, xs, inputs, w, inputs, vectors)
            elif pair:
                _dot_2x1(ys, y_stride, xs, inputs, w, inputs, vectors)
            elif five:
                _dot_1x5(ys, y_stride, xs, inputs, w, inputs, vectors)
            else:
                _dot_1x1(ys, y_stride, xs, inputs, w, inputs, vectors)
            o += 5 if five else 1
        n += 2 if pair else 1


@kernel
def _add_product(y: Any, x: Any, x_row: int, x_column: int, w: Any) -> None:
    """Add a product to y (rows, width): y[r] += Σₖ x[r·x_row + k·x_column] · w[k].

    Args:
        y: (rows, width), whole vectors.
        x: one-dimensional.
        x_row: distance in x between rows of the product.
        x_column: distance in x between its columns.
        w: (count, width).
    """
    rows, width = y.shape
    count = len(w)
    column = 0
    while column < width:
        wide = width - column >= 2 * LANES
        row = 0
        while row < rows:
            five = rows - row >= 5
            ys, xs = pointer(y, row * width + column), pointer(x, row * x_row)
            ws = pointer(w, column)
            if five and wide:
                _outer_5x2(ys, width, xs, x_row, x_column, ws, width, count)
            elif wide:
                _outer_1x2(ys, width, xs, x_row, x_column, ws, width, count)
            elif five:
                _outer_5x1(ys, width, xs, x_row, x_column, ws, width, count)
            else:
                _outer_1x1(ys, width, xs, x_row, x_column, ws, width, count)
            row += 5 if five else 1
        column += 2 * LANES if wide else LANES


@kernel
def linear_backward_x(dy: Any, packed: Any, weight: int, outputs: int, dx: Any) -> None:
    """Set dx to dy W."""
    fill_zero(part(dx, 0, dx.size))
    w = table(packed, weight, outputs, dx.shape[1])
    _add_product(dx, part(dy, 0, dy.size), dy.shape[1], 1, w)


@kernel
def linear_backward_weight(x: Any, dy: Any, gradient: Any, weight: int, outputs: int) -> None:
    """Add dyᵀ x to the gradient of W (outputs, inputs), which begins at `weight`."""
    dw = table(gradient, weight, outputs, x.shape[1])
    _add_product(dw, part(dy, 0, dy.size), 1, dy.shape[1], x)


@kernel
def add_bias(y: Any, bias: Any) -> None:
    """Add the bias to every row of y."""
    for row in range(len(y)):
        for column in range(len(bias)):
            y[row, column] += bias[column]


@kernel
def linear_backward_bias(dy: Any, dbias: Any) -> None:
    """Add the sum of the rows of dy to the gradient of the bias."""
    for row in range(len(dy)):
        for column in range(len(dbias)):
            dbias[column] += dy[row, column]
