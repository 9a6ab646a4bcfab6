"""Sizes of convolutions and poolings, as the kernels take them."""

import math
from dataclasses import astuple, dataclass

from backends.operations.common import Ties

MOST_CLASSES = 32  # where a warp has a lane for each
MOST_CHANNELS = 8  # of a thread of image_gradient.cuh


@dataclass(frozen=True)
class Maps:
    """Sizes of a convolution with a stride of 1, in the order in which the kernels take them.

    Attributes:
        channels: of the images.
        height: of the images.
        width: of the images.
        filters: how many there are.
        padding: zeros on each side.
    """

    channels: int
    height: int
    width: int
    filters: int
    padding: int

    @property
    def threads_of_pixels(self) -> int:
        """How many threads of image_gradient.cuh a channel has: four for 2×2 pixels."""
        return 4 * math.ceil(self.height / 2) * math.ceil(self.width / 2)

    def as_argument(self, kernel_size: int, is_pooled: bool) -> tuple[int, ...]:
        """Return these sizes as the structure `Maps` of maps.cuh, which has two more."""
        return *astuple(self), kernel_size, 2 if is_pooled else 1


@dataclass(frozen=True)
class Windows:
    """Sizes of a pooling, in the order in which the kernels take them.

    Attributes:
        height: of the images.
        width: of the images.
        pooled_height: how many windows lie below each other.
        pooled_width: how many windows lie side by side.
        size: side of a window.
        stride: step between windows.
    """

    height: int
    width: int
    pooled_height: int
    pooled_width: int
    size: int
    stride: int


@dataclass(frozen=True)
class Filters:
    """What a convolution is compiled for.

    Attributes:
        kernel_size: side of a filter.
        ties: of the 2×2 max-pooling that follows; None where none follows.
    """

    kernel_size: int
    ties: Ties | None = None

    def constants(self, activation: str, *, filters: int) -> dict[str, str | int]:
        """Return the options of convolution.cu; a thread has so many filters."""
        return {
            "KERNEL_SIZE": self.kernel_size,
            "FILTERS": filters,
            "ACTIVATION": activation.upper(),
            "POOL": int(self.ties is not None),
        }

    def gradient_constants(self, *, channels: int, patch: int) -> dict[str, str | int]:
        """Return the options of convolution_gradients.cu.

        Args:
            channels: of a thread.
            patch: side of the patches into which filters are cut.
        """
        return {
            "KERNEL_SIZE": self.kernel_size,
            "POOL": int(self.ties is not None),
            "CHANNELS": channels,
            "PATCH": patch,
        }


def maps_of_a_thread(number: int, *, most: int, threads: int, wanted: int) -> int:
    """Return how many of a number of maps a thread has: as many as leave enough threads.

    Args:
        number: which the result divides.
        most: that a thread can have.
        threads: how many there would be for one map.
        wanted: how many there have to be.
    """
    fitting = [
        own
        for own in range(1, most + 1)
        if number % own == 0 and threads * (number // own) >= wanted
    ]
    return max(fitting, default=1)
