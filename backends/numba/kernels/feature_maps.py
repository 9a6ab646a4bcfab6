"""Pooling of feature maps that no convolution of the same stage computes.

Layout: (H, W, lanes) in, (OH, OW, lanes) out. The mask is a number per output: bit i·size + j is
set where position (i, j) of the window receives the gradient.

Cost per output: size² comparisons or additions.
"""

from typing import Any

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.views import fill


@kernel
def max_pool2d(stage: Any, x: Any, y: Any, mask: Any) -> None:
    """Pool one image to the maxima of its windows; a NaN in a window makes its maximum NaN."""
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
    """Set `dx` to the gradient of max-pooling."""
    size, stride, lanes = stage.pool_size, stage.pool_stride, stage.in_lanes
    row = stage.width * lanes
    fill(dx)
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
    """Pool one image to the means of its windows."""
    size, stride, lanes = stage.pool_size, stage.pool_stride, stage.in_lanes
    row = stage.width * lanes
    share = y.dtype.type(1) / y.dtype.type(size * size)
    for r in range(stage.out_height):
        for c in range(stage.out_width):
            corner = r * stride * row + c * stride * lanes
            cell = (r * stage.out_width + c) * lanes
            for lane in range(lanes):
                total = y.dtype.type(0)
                for i in range(size):
                    for j in range(size):
                        total += x[corner + i * row + j * lanes + lane]
                y[cell + lane] = total * share


@kernel
def avg_pool2d_backward(stage: Any, dy: Any, dx: Any) -> None:
    """Set `dx` to the gradient of average pooling."""
    size, stride, lanes = stage.pool_size, stage.pool_stride, stage.in_lanes
    row = stage.width * lanes
    share = dx.dtype.type(1) / dx.dtype.type(size * size)
    fill(dx)
    for r in range(stage.out_height):
        for c in range(stage.out_width):
            corner = r * stride * row + c * stride * lanes
            cell = (r * stage.out_width + c) * lanes
            for lane in range(lanes):
                gradient = dy[cell + lane] * share
                for i in range(size):
                    for j in range(size):
                        dx[corner + i * row + j * lanes + lane] += gradient
