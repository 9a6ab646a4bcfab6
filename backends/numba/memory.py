"""Aligned buffers for the compiled kernels.

Rows of different threads never share a cache line, so that writes of one thread do not slow down
another thread (false sharing). Vectors do not cross cache lines. An array with a row per thread:

    │◀─ CACHE_LINE ─▶│
    ┌────────────────┬────────────────┬────────────────┬────────────────┐
    │ row of thread 0                 │ numbers unused │ unused line    │
    ├────────────────┼────────────────┼────────────────┼────────────────┤
    │ row of thread 1                 │ numbers unused │ unused line    │
    └────────────────┴────────────────┴────────────────┴────────────────┘

The unused line separates the rows because processors prefetch cache lines in pairs.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.numba.kernels.simd.emitter import CACHE_LINE
from backends.numba.kernels.workspace import ADDRESSES, Workspace

Array = NDArray[Any]

# The outputs of a tile of images should fit the cache of a core.
MAX_TILE_BYTES = 1 << 20
MIN_IMAGES_PER_TILE, MAX_IMAGES_PER_TILE = 8, 256


def aligned_zeros(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return zeros of `shape` whose memory begins at a cache line."""
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
    view.setflags(write=False)
    return view


def whole_lines(count: int, dtype: Any) -> int:
    """Return the number of elements in the fewest cache lines that hold `count` elements."""
    line: int = CACHE_LINE // np.dtype(dtype).itemsize
    return -(-count // line) * line


def thread_rows(threads: int, size: int, dtype: Any) -> Array:
    """Return zeros with a row per thread; a row has `size` numbers and then unused numbers."""
    return aligned_zeros((threads, whole_lines(size + CACHE_LINE, dtype)), dtype)


def forward_buffers(
    sizes: Mapping[str, int], threads: int, max_images: int, dtype: Any
) -> dict[str, Any]:
    """Return the fields of `kernels.workspace.Workspace` that the forward pass uses.

    Args:
        sizes: sizes of the buffers, from `Layout.sizes`.
        threads: number of threads.
        max_images: maximum number of images for one thread.
        dtype: dtype of the outputs.
    """
    image_bytes: int = np.dtype(dtype).itemsize * (2 * sizes["outputs"] + sizes["padded"])
    fitting = max(MIN_IMAGES_PER_TILE, MAX_TILE_BYTES // image_bytes)
    capacity = min(fitting, MAX_IMAGES_PER_TILE, max_images)
    return {
        "capacity": capacity,
        "outputs": thread_rows(threads, capacity * sizes["outputs"], dtype),
        "padded": thread_rows(threads, capacity * sizes["padded"], dtype),
        "masks": thread_rows(threads, capacity * sizes["masks"], np.uint8),
        "wide_masks": thread_rows(threads, capacity * sizes["wide_masks"], np.int64),
        "no_bias": thread_rows(threads, sizes["no_bias"], dtype),
    }


def thread_addresses(workspace: Workspace) -> Array:
    """Return the addresses of the buffers of each thread, of dtype `kernels.workspace.ADDRESSES`.

    The arrays of `workspace` must exist as long as the addresses are used.
    """
    threads = np.arange(len(workspace.parameters))
    table = np.zeros(len(threads), ADDRESSES)
    for name, buffers in workspace._asdict().items():
        if isinstance(buffers, int):
            table[name] = buffers
        else:
            table[name] = buffers.ctypes.data + threads * buffers.strides[0]
    for name in ("deltas", "products"):  # all threads share them
        table[name] = getattr(workspace, name).ctypes.data
    return table
