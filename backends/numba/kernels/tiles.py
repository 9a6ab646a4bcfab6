"""The division of a batch among threads in the kernels of single operations.

Each thread computes a range of tiles of `IMAGES_PER_TILE` images. The tiles do not depend on the
number of threads, so the results do not depend on it.
"""

IMAGES_PER_TILE = 16
