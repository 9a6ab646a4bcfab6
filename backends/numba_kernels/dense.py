"""Linear layers: matrix products by BLAS, through Numba's own door to it.

Rows x (N, in), weights (in, out), rows y (N, out). BLAS computes on the thread that calls it; the
rows are shared among threads before.

Cost per image: 2·in·out floating-point operations forward, the same for the gradient of the
weights, the same for that of the rows.
"""

from typing import Any

import numpy as np

from backends.numba_kernels.compilation import kernel
from backends.numba_kernels.elementwise import add, fill
from backends.numba_kernels.views import part, table


@kernel
def linear(x: Any, weight: Any, y: Any) -> None:
    """Set y to x W."""
    if len(x) == 1:
        np.dot(part(x, 0, x.shape[1]), weight, part(y, 0, y.shape[1]))
    else:
        np.dot(x, weight, y)


@kernel
def add_bias(y: Any, bias: Any) -> None:
    """Add a bias to every row."""
    for row in range(len(y)):
        for column in range(len(bias)):
            y[row, column] += bias[column]


@kernel
def linear_backward_x(dy: Any, weight: Any, dx: Any) -> None:
    """Set dx to dy Wᵀ."""
    if len(dy) == 1:
        np.dot(weight, part(dy, 0, dy.shape[1]), part(dx, 0, dx.shape[1]))
    else:
        np.dot(dy, weight.T, dx)


@kernel
def linear_backward_weight(x: Any, dy: Any, dweight: Any, scratch: Any, adds: bool) -> None:
    """Set `dweight` to xᵀ dy, or add it to what is there."""
    if len(x) == 1:
        for i in range(dweight.shape[0]):
            value = x[0, i]
            for j in range(dweight.shape[1]):
                product = value * dy[0, j]
                dweight[i, j] = dweight[i, j] + product if adds else product
    elif adds:
        product = table(scratch, 0, dweight.shape[0], dweight.shape[1])
        np.dot(x.T, dy, product)
        add(part(product, 0, product.size), part(dweight, 0, dweight.size))
    else:
        np.dot(x.T, dy, dweight)


@kernel
def linear_backward_bias(dy: Any, dbias: Any, adds: bool) -> None:
    """Set `dbias` to the sum of the rows of dy, or add it to what is there."""
    if not adds:
        fill(dbias)
    for row in range(len(dy)):
        for column in range(len(dbias)):
            dbias[column] += dy[row, column]
