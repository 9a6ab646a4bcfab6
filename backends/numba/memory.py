"""Memory for the compiled kernels: no vector on two cache lines, no line for two threads."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.numba.kernels.vectors import CACHE_LINE

Array = NDArray[Any]

# What a block of images leaves behind should fit the cache of a core.
BLOCK_BYTES = 1 << 20
FEWEST_IMAGES_A_BLOCK, MOST_IMAGES_A_BLOCK = 8, 256


def zeros(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return zeros that begin at a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.zeros(size + CACHE_LINE, np.uint8)
    first = -room.ctypes.data % CACHE_LINE
    aligned: Array = room[first : first + size].view(dtype).reshape(shape)
    return aligned


def read_only(array: Array) -> Array:
    """Return a view of an array that nobody can write to.

    Arrays that can be written to are of another type for Numba, and compiled for anew.
    """
    view = array.view()
    view.flags.writeable = False
    return view


def whole_lines(count: int, dtype: Any) -> int:
    """Return how many numbers the cache lines hold that so many numbers need."""
    line: int = CACHE_LINE // np.dtype(dtype).itemsize
    return -(-count // line) * line


def rooms(threads: int, dtype: Any) -> Callable[..., Array]:
    """Return the function that makes an array with a row for each thread.

    It takes the size of a row, and the dtype where it is not `dtype`.
    """

    def room(size: int, kind: Any = dtype) -> Array:
        # And a line or more between the rows: processors fetch lines in pairs.
        return zeros((threads, whole_lines(size + CACHE_LINE, kind)), kind)

    return room


def block_capacity(sizes: Mapping[str, int], dtype: Any, images: int) -> int:
    """Return how many images make a block.

    Args:
        sizes: of the arrays of a workspace, as a layout has them.
        dtype: of the numbers.
        images: the most that one thread is given.
    """
    image_bytes: int = np.dtype(dtype).itemsize * (2 * sizes["outputs"] + sizes["padded"])
    fitting = max(FEWEST_IMAGES_A_BLOCK, BLOCK_BYTES // image_bytes)
    return min(fitting, MOST_IMAGES_A_BLOCK, images)
