"""Sizes of a convolution, and how many feature maps one thread computes."""

import math
from dataclasses import dataclass

PIXEL_TILE = 2  # side of the pixel tiles of kernels/conv_input_gradient.cuh
MAX_CHANNELS_PER_THREAD = 8  # in conv_input_gradient.cuh


@dataclass(frozen=True)
class ConvShape:
    """Sizes of a convolution with stride 1; the struct of kernels/conv_shape.cuh.

    Attributes:
        channels: channels of the images.
        height: height of the images in pixels.
        width: width of the images in pixels.
        filters: number of filters.
        kernel_size: side of a filter in pixels.
        padding: zeros on each side.
        pool: side of the max-pooling patches, 2; 1 without pooling.
    """

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


def maps_per_thread(maps: int, *, maximum: int, threads: int, target_threads: int) -> int:
    """Return how many of `maps` filters or channels one thread computes.

    That is the largest divisor of `maps` that leaves enough threads to keep the GPU busy.

    Args:
        maps: number of filters or channels.
        maximum: largest result.
        threads: number of threads per map.
        target_threads: how many threads there should be in total.
    """
    divisors = [count for count in range(1, maximum + 1) if maps % count == 0]
    return max((d for d in divisors if threads * (maps // d) >= target_threads), default=1)
