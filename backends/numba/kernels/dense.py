"""Linear layers: matrix products in register tiles.

Layout: inputs x (N, inputs), weights (outputs, inputs), outputs y (N, outputs). Rows of x and y are
padded to whole vectors with zeros. Vectors run along the inputs, the longest dimension in small
networks. The forward pass computes dot products, the backward pass sums of rows. The weights of a
first layer that reads pixels have vector blocks (see `simd.gemm`).

A BLAS library is as fast for large matrices. For small ones, it takes longer to prepare than to
compute: for 32 × 1352 by 1352 × 10, OpenBLAS takes twice as long as these kernels.

Cost per image: 2·inputs·outputs floating-point operations in the forward pass, and as many for each
of the gradients of weights and inputs.
"""

from typing import Any

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.simd.gemm import (
    gemm_dot,
    gemm_dot_gather,
    gemm_outer,
    gemm_outer_gather,
)
from backends.numba.kernels.views import fill_zero, pointer, view, view_2d


@kernel
def linear(x: Any, packed: Any, weight: int, outputs: int, y: Any) -> None:
    """Set y to x Wᵀ, where W (outputs, inputs) begins at `weight` in `packed`."""
    inputs = x.shape[1]
    gemm_dot(
        pointer(y, 0), y.shape[1], pointer(x, 0), inputs, pointer(packed, weight), inputs,
        len(x), outputs, inputs,
    )  # fmt: skip


@kernel
def _add_product(y: Any, x: Any, x_row: int, x_column: int, w: Any) -> None:
    """Add a product to y (rows, width): y[r] += Σₖ x[r·x_row + k·x_column] · w[k]."""
    rows, width = y.shape
    gemm_outer(
        pointer(y, 0), width, pointer(x, 0), x_row, x_column, pointer(w, 0), width,
        rows, width, len(w),
    )  # fmt: skip


@kernel
def linear_backward_x(dy: Any, packed: Any, weight: int, outputs: int, dx: Any) -> None:
    """Set dx to dy W."""
    fill_zero(view(dx, 0, dx.size))
    _add_product(dx, dy, dy.shape[1], 1, view_2d(packed, weight, outputs, dx.shape[1]))


@kernel
def linear_backward_weight(x: Any, dy: Any, gradient: Any, weight: int, outputs: int) -> None:
    """Add dyᵀ x to the gradient of W (outputs, inputs), which begins at `weight`."""
    _add_product(view_2d(gradient, weight, outputs, x.shape[1]), dy, 1, dy.shape[1], x)


@kernel
def pixel_linear(
    pixels: Any, rows: Any, later: Any, w: Any, outputs: int, begin: int, end: int, y: Any
) -> None:
    """Set y to the product of images and Wᵀ, from the pixels `begin` to `end` − 1.

    Args:
        pixels: all images, in whole vectors of any number type.
        rows: pointer to the indices of the images.
        later: pointer to the indices of as many images, whose pixels are prefetched.
        w: pointer to W (outputs, pixels), in vector blocks.
        outputs: rows of W.
        begin: first pixel, at the beginning of a vector.
        end: end of the pixels, at the end of a vector.
        y: (N, outputs or more).
    """
    fill_zero(view(y, 0, y.size))
    gemm_dot_gather(
        pointer(y, 0), y.shape[1], pointer(pixels, begin), pixels.shape[1], rows, later,
        pointer(w, begin * outputs), len(y), outputs, end - begin,
    )  # fmt: skip


@kernel
def pixel_linear_backward(
    pixels: Any, rows: Any, scale: float, dy: Any, target: Any, outputs: int, begin: int, end: int,
    shrink: float,
) -> None:  # fmt: skip
    """Add scale · dyᵀ x to the columns `begin` to `end` − 1 of a matrix, and multiply them.

    Args:
        pixels: all images, as in `pixel_linear`.
        rows: pointer to the indices of the images x.
        scale: factor of the pixels.
        dy: (N, outputs or more).
        target: pointer to the matrix (outputs, pixels), in vector blocks.
        outputs: rows of the matrix.
        begin: first column, at the beginning of a vector.
        end: end of the columns, at the end of a vector.
        shrink: factor of the sum.
    """
    gemm_outer_gather(
        pointer(target, begin * outputs), pointer(dy, 0), dy.shape[1], pointer(pixels, begin),
        pixels.shape[1], rows, outputs, end - begin, len(dy), scale, shrink,
    )  # fmt: skip


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
