"""How the kernels are compiled, and how they share a batch among threads.

A batch is cut into chunks of `IMAGES_PER_CHUNK` images. A kernel comes as two functions: one works
on a single chunk, the other runs over all chunks in parallel. Small batches are one chunk, and so
never pay for waking threads. Because the cuts depend on the batch alone, results do not depend on
the number of threads.
"""

import os
import threading

import numba
from numba import njit

# Numba prefers OpenMP, whose threads wait by spinning: where other programs want the cores as well,
# a step takes ten times as long as with Numba's own pool, whose threads sleep. (Six busy processes
# on two cores, lenet at batch 64: 600 ms against 60 ms.) A choice of the user's own is respected.
if "NUMBA_THREADING_LAYER" not in os.environ:
    numba.config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]

# That pool serves one caller at a time, and ends the process if there are two.
one_parallel_kernel_at_a_time = threading.Lock()

IMAGES_PER_CHUNK = 16

# Sums may be reordered, so that they vectorise, and products contracted to fused multiply-adds. The
# flags that assume there is no NaN and no infinity stay off: a diverging loss must show.
FAST_SUMS = {"reassoc", "contract", "nsz"}

chunk_kernel = njit(cache=True, nogil=True, fastmath=FAST_SUMS, error_model="numpy")
batch_kernel = njit(cache=True, nogil=True, parallel=True, fastmath=FAST_SUMS, error_model="numpy")


@njit(cache=True, inline="always")
def chunk_count(images: int) -> int:
    """Return how many chunks a batch of `images` is cut into."""
    return (images + IMAGES_PER_CHUNK - 1) // IMAGES_PER_CHUNK
