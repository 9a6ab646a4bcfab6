"""How the kernels are compiled, and how they share a batch among threads.

A batch is cut into chunks of `IMAGES_PER_CHUNK` images, and each kernel works on a range of chunks;
threads take ranges. Kernels release Python's global lock while they run, and know nothing of
threads. Because the cuts depend on the batch alone, results do not depend on the number of threads.
"""

from numba import njit

IMAGES_PER_CHUNK = 16

# Sums may be reordered, so that they vectorise, and products contracted to fused multiply-adds. The
# flags that assume there is no NaN and no infinity stay off: a diverging loss must show.
chunk_kernel = njit(
    cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy"
)
