"""A linear layer whose input is sparse.

Four of five pixels of MNIST are 0. Only the rows of the weights (inputs, outputs) that belong to
nonzero pixels are read in the forward pass, and only their gradients change in the backward pass.
Rows of the weights are padded to whole vectors.

In the forward pass, the images are divided among threads. In the backward pass, the rows of the
weights are: each thread processes one range of columns of all images (the column groups in `csr`).
Two threads therefore never write to the same row, and each row is a sum over the images in order.

Cost per image: 2·n·outputs floating-point operations forward and backward for n nonzero pixels.
"""

from typing import Any

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.simd.sparse import gather_axpy, scatter_axpy
from backends.numba.kernels.views import pointer


@kernel
def add_sparse_product(
    y: Any, weights: Any, weight: int, stride: int, indices: Any, data: Any
) -> None:
    """Add the product of a sparse row with the weights that begin at `weight` to y (outputs,).

    The rows of the weights are `stride` apart; y is whole vectors.
    """
    gather_axpy(
        pointer(y, 0), pointer(weights, weight), stride, len(y),
        pointer(indices, 0), pointer(data, 0), len(indices),
    )  # fmt: skip


@kernel
def add_sparse_outer(
    gradient: Any, weight: int, indices: Any, data: Any, dy: Any, scale: Any
) -> None:
    """Add scale · xᵀ dy to the matrix that begins at `weight`, for a sparse row x.

    Both the rows of the matrix and dy (outputs,) are whole vectors.
    """
    scatter_axpy(
        pointer(gradient, weight), len(dy), len(dy),
        pointer(indices, 0), pointer(data, 0), len(indices), pointer(dy, 0), scale,
    )  # fmt: skip
