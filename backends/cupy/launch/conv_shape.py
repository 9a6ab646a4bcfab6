"""Sizes of a convolution, and how many feature maps one thread computes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from backends.program import Stage

PIXEL_TILE = 2  # side of the pixel tiles of kernels/conv_input_gradient.cuh
MAX_CHANNELS_PER_THREAD = 8  # in conv_input_gradient.cuh


@dataclass(frozen=True)
class ConvShape:
    """Sizes of a convolution with stride 1; the struct of kernels/conv_shape.cuh."""

    channels: int
    height: int
    width: int
    filters: int
    kernel_size: int
    padding: int
    pool: int = 1

    @property
    def input_gradient_threads(self) -> int:
        """Number of threads per channel of conv_input_gradient.cuh: one per pixel of each tile."""
        tiles = math.ceil(self.height / PIXEL_TILE) * math.ceil(self.width / PIXEL_TILE)
        return PIXEL_TILE**2 * tiles


NO_CONV = ConvShape(0, 0, 0, 0, 0, 0, 0)  # of a linear layer


def conv_shape(
    x_shape: Sequence[int], filters: int, kernel_size: int, padding: int, *, pool: int = 1
) -> ConvShape:
    """Return the sizes of a convolution of images (…, C, H, W)."""
    channels, height, width = x_shape[-3:]
    return ConvShape(channels, height, width, filters, kernel_size, padding, pool)


def conv_shape_of(stage: Stage) -> ConvShape:
    """Return the sizes of a convolution of a program."""
    filters, pool = stage.output_shape[0], 1 if stage.pooling is None else 2
    return conv_shape(stage.input_shape, filters, stage.kernel_size, stage.padding, pool=pool)


def maps_per_thread(maps: int, *, maximum: int, threads: int, target_threads: int) -> int:
    """Return how many of `maps` filters or channels one thread computes.

    That is the largest divisor of `maps`, up to `maximum`, for which `threads` per map result in at
    least `target_threads`.
    """
    divisors = [count for count in range(1, maximum + 1) if maps % count == 0]
    return max((d for d in divisors if threads * (maps // d) >= target_threads), default=1)
