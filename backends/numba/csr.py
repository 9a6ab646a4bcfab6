"""Conversion of a data set to sparse (CSR) format, on all threads."""

from collections.abc import Callable
from concurrent.futures import Executor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.compilation import needed_kernels
from backends.numba.kernels import csr as kernels
from backends.numba.kernels.input_layer import UPDATE_PASSES
from backends.numba.kernels.vector_width import VECTOR_BYTES
from backends.numba.threads import run_in_ranges

Array = NDArray[Any]

# If a larger part of the pixels is nonzero, the dense product is faster. Vectors of 512 bits speed
# up only the dense product, because the sparse one waits for memory.
MAX_SPARSE_DENSITY = 0.27 if VECTOR_BYTES == 64 else 0.35

# One thread scans this many pixels in 0.1 ms. With fewer, another thread wakes up too late to save
# time.
MIN_PIXELS_PER_THREAD = 1 << 18


class Csr(NamedTuple):
    """Images in CSR format; see `kernels.csr`."""

    edges: NDArray[np.int64]
    indptr: NDArray[np.int64]
    indices: NDArray[np.uint16]
    data: Array


def to_csr(pixels: Array, *, threads: int, executor: Callable[[], Executor]) -> Csr | None:
    """Return images in CSR format, or None if too few pixels are 0.

    Args:
        pixels: (N, pixels).
        threads: maximum number of threads; there are `UPDATE_PASSES` column groups for each.
        executor: returns an executor with at least `threads` − 1 workers.
    """
    needed_kernels.extend(["count_by_column", "write_csr"])
    counts: dict[int, NDArray[np.int64]] = {}  # by the first image of a range

    def count(first: int, last: int) -> None:
        counts[first] = np.zeros(pixels.shape[1], np.int64)
        kernels.count_by_column(pixels, first, last, counts[first])

    ranges = max(1, min(threads, pixels.size // MIN_PIXELS_PER_THREAD))
    run_in_ranges(executor, count, len(pixels), ranges=ranges)
    firsts = sorted(counts)
    table = np.stack([counts[first] for first in firsts])
    total = int(table.sum())
    if total >= MAX_SPARSE_DENSITY * pixels.size:
        return None
    edges = _column_groups(table.sum(axis=0), threads * UPDATE_PASSES)
    indptr = np.empty(len(pixels) * (len(edges) - 1) + 1, np.int64)
    indices, data = np.empty(total, np.uint16), np.empty(total, pixels.dtype)
    begins = [0, *table.sum(axis=1).cumsum().tolist()]
    bounds = dict(zip(firsts, pairwise(begins), strict=True))

    def write(first: int, last: int) -> None:
        kernels.write_csr(pixels, edges, indptr, indices, data, first, last, *bounds[first])

    run_in_ranges(executor, write, len(pixels), ranges=ranges)
    return Csr(edges, indptr, indices, data)


def looks_sparse(pixels: Array) -> bool:
    """Return whether `to_csr` returns CSR arrays for images (N, pixels)."""
    return bool(np.count_nonzero(pixels) < MAX_SPARSE_DENSITY * pixels.size)


def _column_groups(counts: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    """Return the edges of column groups that have about the same number of nonzero pixels.

    The edges are multiples of 4: a row of weights may end within a cache line, but four rows end at
    the end of a cache line, because a row consists of vectors of at least 16 bytes.

    Args:
        counts: number of nonzero pixels in each column.
        groups: number of groups.
    """
    below = np.cumsum(counts)
    targets = below[-1] * np.arange(1, groups) / groups
    return np.array([0, *(np.searchsorted(below, targets) // 4 * 4), len(below)], np.int64)
