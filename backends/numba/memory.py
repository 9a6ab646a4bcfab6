"""Aligned buffers for the compiled kernels.

Rows of different threads never share a cache line, so that a write of one thread does not slow down
another (false sharing). Vectors do not cross cache lines. An array with a row per thread:

    │◀─ CACHE_LINE ─▶│
    ┌────────────────┬────────────────┬────────────────┬────────────────┐
    │ row of thread 0                 │ numbers unused │ unused line    │
    ├────────────────┼────────────────┼────────────────┼────────────────┤
    │ row of thread 1                 │ numbers unused │ unused line    │
    └────────────────┴────────────────┴────────────────┴────────────────┘

The unused line is there because processors prefetch cache lines in pairs.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.numba.kernels.simd.emitter import CACHE_LINE

Array = NDArray[Any]

# The outputs of a tile of images should fit the cache of a core.
MAX_TILE_BYTES = 1 << 20
MIN_IMAGES_PER_TILE, MAX_IMAGES_PER_TILE = 8, 256


def aligned_zeros(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return zeros of `shape` that begin at a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + CACHE_LINE, np.uint8)
    first = -memory.ctypes.data % CACHE_LINE
    aligned: Array = memory[first : first + size].view(dtype).reshape(shape)
    return aligned


def read_only(array: Array) -> Array:
    """Return a read-only view of an array.

    Numba has different types for writable and read-only arrays and would compile for both.
    """
    view = array.view()
    view.flags.writeable = False
    return view


def whole_lines(count: int, dtype: Any) -> int:
    """Return `count` rounded up to the numbers of whole cache lines."""
    line: int = CACHE_LINE // np.dtype(dtype).itemsize
    return -(-count // line) * line


def thread_buffers(threads: int, dtype: Any) -> Callable[..., Array]:
    """Return a function that makes a buffer with a row per thread.

    Its arguments are the size of a row, and the dtype if it is not `dtype`.
    """

    def buffer(size: int, kind: Any = dtype) -> Array:
        return aligned_zeros((threads, whole_lines(size + CACHE_LINE, kind)), kind)

    return buffer


def tile_capacity(sizes: Mapping[str, int], dtype: Any, images: int) -> int:
    """Return the maximum number of images in a tile.

    Args:
        sizes: sizes of the buffers, from `Layout.sizes`.
        dtype: dtype of the outputs.
        images: maximum number of images for one thread.
    """
    image_bytes: int = np.dtype(dtype).itemsize * (2 * sizes["outputs"] + sizes["padded"])
    fitting = max(MIN_IMAGES_PER_TILE, MAX_TILE_BYTES // image_bytes)
    return min(fitting, MAX_IMAGES_PER_TILE, images)
