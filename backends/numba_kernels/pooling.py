"""Maximum and average pooling, and their gradients.

Layout: images (N, C, H, W), pooled (N, C, OH, OW), tie mask like the pooled: bit i·size + j is set
where position (i, j) of the window receives the gradient.

The loops are written once, for any window. Windows of 2×2 that do not overlap, which every recipe
has, are compiled a second time with these numbers as constants: unrolled and vectorised, they take
an eighth of the time. A NaN in a window makes its maximum NaN, as in NumPy.

Cost per window: size² comparisons for the maximum, as many for the mask.
"""

from typing import Any

from numba import njit, prange

from backends.numba_kernels.parallel import (
    IMAGES_PER_CHUNK,
    batch_kernel,
    chunk_count,
    chunk_kernel,
)


@njit(inline="always")
def _max_pool2d(
    x: Any, size: int, stride: int, all_ties: bool, y: Any, mask: Any, first: int, last: int
) -> None:
    channels, oh, ow = y.shape[1:]
    for n in range(first, last):
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
                            hit = (value == maximum) & (all_ties | (bits == 0))
                            bits |= hit << (i * size + j)
                    y[n, c, row, col] = maximum
                    mask[n, c, row, col] = bits


@chunk_kernel
def max_pool2d_chunk(
    x: Any, size: int, stride: int, all_ties: bool, y: Any, mask: Any, first: int, last: int
) -> None:
    """Pool images `first` to `last` − 1 of `x` into `y`, with the tie mask."""
    if size == 2 and stride == 2:
        _max_pool2d(x, 2, 2, all_ties, y, mask, first, last)
    else:
        _max_pool2d(x, size, stride, all_ties, y, mask, first, last)


@batch_kernel
def max_pool2d_batch(x: Any, size: int, stride: int, all_ties: bool, y: Any, mask: Any) -> None:
    """Pool all images of `x` into `y`, with the tie mask."""
    images = x.shape[0]
    for chunk in prange(chunk_count(images)):
        first = chunk * IMAGES_PER_CHUNK
        last = min(first + IMAGES_PER_CHUNK, images)
        max_pool2d_chunk(x, size, stride, all_ties, y, mask, first, last)


@njit(inline="always")
def _max_pool2d_backward(
    dy: Any, mask: Any, size: int, stride: int, dx: Any, first: int, last: int
) -> None:
    channels, oh, ow = dy.shape[1:]
    zero = dy.dtype.type(0)
    for n in range(first, last):
        for c in range(channels):
            dx[n, c] = 0
            for row in range(oh):
                for i in range(size):
                    for col in range(ow):
                        gradient = dy[n, c, row, col]
                        bits = mask[n, c, row, col]
                        for j in range(size):
                            hit = bits & (1 << (i * size + j))
                            dx[n, c, row * stride + i, col * stride + j] += (
                                gradient if hit else zero
                            )


@chunk_kernel
def max_pool2d_backward_chunk(
    dy: Any, mask: Any, size: int, stride: int, dx: Any, first: int, last: int
) -> None:
    """Set images `first` to `last` − 1 of `dx` to the gradient of max pooling."""
    if size == 2 and stride == 2:
        _max_pool2d_backward(dy, mask, 2, 2, dx, first, last)
    else:
        _max_pool2d_backward(dy, mask, size, stride, dx, first, last)


@batch_kernel
def max_pool2d_backward_batch(dy: Any, mask: Any, size: int, stride: int, dx: Any) -> None:
    """Set all images of `dx` to the gradient of max pooling."""
    images = dy.shape[0]
    for chunk in prange(chunk_count(images)):
        first = chunk * IMAGES_PER_CHUNK
        last = min(first + IMAGES_PER_CHUNK, images)
        max_pool2d_backward_chunk(dy, mask, size, stride, dx, first, last)


@chunk_kernel
def avg_pool2d_chunk(x: Any, size: int, stride: int, y: Any, first: int, last: int) -> None:
    """Average images `first` to `last` − 1 of `x` into `y`."""
    channels, oh, ow = y.shape[1:]
    share = y.dtype.type(1) / y.dtype.type(size * size)
    for n in range(first, last):
        for c in range(channels):
            for row in range(oh):
                means = y[n, c, row]
                means[:] = 0
                for i in range(size):
                    for j in range(size):
                        source = x[n, c, row * stride + i, j:]
                        for col in range(ow):
                            means[col] += source[col * stride]
                for col in range(ow):
                    means[col] *= share


@batch_kernel
def avg_pool2d_batch(x: Any, size: int, stride: int, y: Any) -> None:
    """Average all images of `x` into `y`."""
    images = x.shape[0]
    for chunk in prange(chunk_count(images)):
        first = chunk * IMAGES_PER_CHUNK
        avg_pool2d_chunk(x, size, stride, y, first, min(first + IMAGES_PER_CHUNK, images))


@chunk_kernel
def avg_pool2d_backward_chunk(
    dy: Any, size: int, stride: int, dx: Any, first: int, last: int
) -> None:
    """Set images `first` to `last` − 1 of `dx` to the gradient of average pooling."""
    channels, oh, ow = dy.shape[1:]
    share = dx.dtype.type(1) / dx.dtype.type(size * size)
    for n in range(first, last):
        for c in range(channels):
            dx[n, c] = 0
            for row in range(oh):
                gradients = dy[n, c, row]
                for i in range(size):
                    for j in range(size):
                        target = dx[n, c, row * stride + i, j:]
                        for col in range(ow):
                            target[col * stride] += share * gradients[col]


@batch_kernel
def avg_pool2d_backward_batch(dy: Any, size: int, stride: int, dx: Any) -> None:
    """Set all images of `dx` to the gradient of average pooling."""
    images = dy.shape[0]
    for chunk in prange(chunk_count(images)):
        first = chunk * IMAGES_PER_CHUNK
        avg_pool2d_backward_chunk(
            dy, size, stride, dx, first, min(first + IMAGES_PER_CHUNK, images)
        )
