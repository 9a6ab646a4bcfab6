"""Pooling with channels last, for stages in which pooling does not follow a convolution.

Layout: x (H, W, lanes), y (OH, OW, lanes), and a tie mask in the shape of y: bit i·size + j is set
if position (i, j) of the patch receives the gradient.

Cost per output: size² comparisons or additions.
"""

from typing import Any

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.views import fill_zero


@kernel
def max_pool2d(stage: Any, x: Any, y: Any, mask: Any) -> None:
    """Set y to the maxima of the patches of one image; a NaN in a patch makes its maximum NaN."""
    size, stride, lanes = stage.pool_size, stage.pool_stride, stage.in_lanes
    row = stage.width * lanes
    for r in range(stage.out_height):
        for c in range(stage.out_width):
            corner = r * stride * row + c * stride * lanes
            cell = (r * stage.out_width + c) * lanes
            for lane in range(lanes):
                maximum = x[corner + lane]
                for i in range(size):
                    for j in range(size):
                        value = x[corner + i * row + j * lanes + lane]
                        if value > maximum or value != value:
                            maximum = value
                bits = 0
                for i in range(size):
                    for j in range(size):
                        value = x[corner + i * row + j * lanes + lane]
                        if value == maximum and (stage.all_ties or bits == 0):
                            bits |= 1 << (i * size + j)
                y[cell + lane] = maximum
                mask[cell + lane] = bits


@kernel
def max_pool2d_backward(stage: Any, dy: Any, mask: Any, dx: Any) -> None:
    """Set dx to the gradient of max-pooling."""
    size, stride, lanes = stage.pool_size, stage.pool_stride, stage.in_lanes
    row = stage.width * lanes
    fill_zero(dx)
    for r in range(stage.out_height):
        for c in range(stage.out_width):
            corner = r * stride * row + c * stride * lanes
            cell = (r * stage.out_width + c) * lanes
            for lane in range(lanes):
                bits = mask[cell + lane]
                for i in range(size):
                    for j in range(size):
                        if (bits >> (i * size + j)) & 1:
                            dx[corner + i * row + j * lanes + lane] += dy[cell + lane]


@kernel
def avg_pool2d(stage: Any, x: Any, y: Any) -> None:
    """Set y to the means of the patches of one image."""
    size, stride, lanes = stage.pool_size, stage.pool_stride, stage.in_lanes
    row = stage.width * lanes
    scale = y.dtype.type(1) / y.dtype.type(size * size)
    for r in range(stage.out_height):
        for c in range(stage.out_width):
            corner = r * stride * row + c * stride * lanes
            cell = (r * stage.out_width + c) * lanes
            for lane in range(lanes):
                total = y.dtype.type(0)
                for i in range(size):
                    for j in range(size):
                        total += x[corner + i * row + j * lanes + lane]
                y[cell + lane] = total * scale


@kernel
def avg_pool2d_backward(stage: Any, dy: Any, dx: Any) -> None:
    """Set dx to the gradient of average pooling."""
    size, stride, lanes = stage.pool_size, stage.pool_stride, stage.in_lanes
    row = stage.width * lanes
    scale = dx.dtype.type(1) / dx.dtype.type(size * size)
    fill_zero(dx)
    for r in range(stage.out_height):
        for c in range(stage.out_width):
            corner = r * stride * row + c * stride * lanes
            cell = (r * stage.out_width + c) * lanes
            for lane in range(lanes):
                gradient = dy[cell + lane] * scale
                for i in range(size):
                    for j in range(size):
                        dx[corner + i * row + j * lanes + lane] += gradient
