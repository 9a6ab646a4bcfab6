"""Sizes of a convolution, and the number of its channels that one thread computes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from backends.program import Stage

PIXEL_TILE = 2  # side of the pixel tiles of kernels/conv_input_gradient.cuh
MAX_CHANNELS_PER_THREAD = 8  # largest CHANNELS_PER_THREAD of kernels/conv_input_gradient.cuh


@dataclass(frozen=True)
class ConvShape:
    """Sizes of a convolution with stride 1; kernels/conv_shape.cuh describes the fields."""

    channels: int
    height: int
    width: int
    filters: int
    kernel_size: int
    padding: int
    pool: int = 1

    @property
    def input_gradient_threads(self) -> int:
        """Number of threads that compute the gradient of one channel of one input image.

        conv_input_gradient.cuh uses one thread per pixel of each pixel tile.
        """
        tiles = math.ceil(self.height / PIXEL_TILE) * math.ceil(self.width / PIXEL_TILE)
        return PIXEL_TILE**2 * tiles


NO_CONV = ConvShape(0, 0, 0, 0, 0, 0, 0)  # marks a linear layer in `WgradLayer`


def conv_shape(
    x_shape: Sequence[int], filters: int, kernel_size: int, padding: int, *, pool: int = 1
) -> ConvShape:
    """Return the sizes of a convolution of images (…, C, H, W)."""
    channels, height, width = x_shape[-3:]
    return ConvShape(channels, height, width, filters, kernel_size, padding, pool)


def conv_shape_of(stage: Stage) -> ConvShape:
    """Return the sizes of the convolution in a stage of kind "conv2d"."""
    filters, pool = stage.output_shape[0], 1 if stage.pooling is None else 2
    return conv_shape(stage.input_shape, filters, stage.kernel_size, stage.padding, pool=pool)


def channels_per_thread(channels: int, *, maximum: int, threads: int, target_threads: int) -> int:
    """Return how many input or output channels of a convolution one thread computes.

    The result is the largest divisor of `channels` that is at most `maximum` and leaves at least
    `target_threads` threads in total. If no divisor leaves that many, it is 1.

    Args:
        channels: number of input channels, or of output channels (filters).
        maximum: largest result.
        threads: number of threads that compute one channel.
        target_threads: number of threads that keeps the GPU busy.
    """
    divisors = [count for count in range(1, maximum + 1) if channels % count == 0]
    return max((d for d in divisors if threads * (channels // d) >= target_threads), default=1)
