"""Linear layers: matrix products whose tiles stay in registers.

Rows x (N, inputs), weights (outputs, inputs), rows y (N, outputs). Rows of x and of y are filled up
to whole vectors; what fills up is 0. Every product runs along the inputs, of which small networks
have the most: forward as dot products, back as rows added up.

The product of a library is as good on large matrices. On these its preparations cost more than the
arithmetic: for 32 × 1352 by 1352 × 10 OpenBLAS takes twice as long.

Cost per image: 2·inputs·outputs floating-point operations forward, the same for the gradient of the
weights, the same for that of the rows.
"""

from typing import Any

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.vectors import LANES, add_products, dot_products
from backends.numba.kernels.views import fill, part

# Tiles that leave their sums in registers, and what is left over at the edges. Five, since people
# choose 10, 30, 50 or 120 units.
_dots_2x5, _dots_2x1, _dots_1x5, _dots_1x1 = (
    dot_products(rows, columns) for rows, columns in ((2, 5), (2, 1), (1, 5), (1, 1))
)
_add_5x2, _add_1x2, _add_5x1, _add_1x1 = (
    add_products(rows, vectors) for rows, vectors in ((5, 2), (1, 2), (5, 1), (1, 1))
)


@kernel
def linear(x: Any, packed: Any, weight: int, outputs: int, y: Any) -> None:
    """Set y to x Wᵀ, with the weights (outputs, inputs) that begin at `weight`."""
    inputs, step = x.shape[1], y.shape[1]
    vectors = inputs // LANES
    n = 0
    while n < len(x):
        pair = len(x) - n >= 2
        x_at = n * inputs
        o = 0
        while o < outputs:
            five = outputs - o >= 5
            y_at, w_at = n * step + o, weight + o * inputs
            if pair and five:
                _dots_2x5(y, y_at, step, x, x_at, inputs, packed, w_at, inputs, vectors)
            elif pair:
                _dots_2x1(y, y_at, step, x, x_at, inputs, packed, w_at, inputs, vectors)
            elif five:
                _dots_1x5(y, y_at, step, x, x_at, inputs, packed, w_at, inputs, vectors)
            else:
                _dots_1x1(y, y_at, step, x, x_at, inputs, packed, w_at, inputs, vectors)
            o += 5 if five else 1
        n += 2 if pair else 1


@kernel
def _add_product(
    y: Any,
    y_at: int,
    rows: int,
    width: int,
    x: Any,
    x_row: int,
    x_column: int,
    w: Any,
    w_at: int,
    count: int,
) -> None:
    """Add x w to `rows` rows of `width` numbers; see `add_products`."""
    column = 0
    while column < width:
        wide = width - column >= 2 * LANES
        row = 0
        while row < rows:
            five = rows - row >= 5
            at, x_at, from_ = y_at + row * width + column, row * x_row, w_at + column
            if five and wide:
                _add_5x2(y, at, width, x, x_at, x_row, x_column, w, from_, width, count)
            elif wide:
                _add_1x2(y, at, width, x, x_at, x_row, x_column, w, from_, width, count)
            elif five:
                _add_5x1(y, at, width, x, x_at, x_row, x_column, w, from_, width, count)
            else:
                _add_1x1(y, at, width, x, x_at, x_row, x_column, w, from_, width, count)
            row += 5 if five else 1
        column += 2 * LANES if wide else LANES


@kernel
def linear_backward_x(dy: Any, packed: Any, weight: int, outputs: int, dx: Any) -> None:
    """Set dx to dy W."""
    flat, rows = part(dx, 0, dx.size), part(dy, 0, dy.size)
    fill(flat)
    _add_product(flat, 0, len(dx), dx.shape[1], rows, dy.shape[1], 1, packed, weight, outputs)


@kernel
def linear_backward_weight(x: Any, dy: Any, gradient: Any, weight: int, outputs: int) -> None:
    """Add dyᵀ x to the gradient (outputs, inputs) that begins at `weight`."""
    rows, inputs = part(dy, 0, dy.size), part(x, 0, x.size)
    _add_product(gradient, weight, outputs, x.shape[1], rows, 1, dy.shape[1], inputs, 0, len(x))


@kernel
def add_bias(y: Any, bias: Any) -> None:
    """Add a bias to every row."""
    for row in range(len(y)):
        for column in range(len(bias)):
            y[row, column] += bias[column]


@kernel
def linear_backward_bias(dy: Any, dbias: Any) -> None:
    """Add the rows of dy to the gradient of the bias."""
    for row in range(len(dy)):
        for column in range(len(dbias)):
            dbias[column] += dy[row, column]
