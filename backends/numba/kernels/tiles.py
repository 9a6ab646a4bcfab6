"""The division of a batch among threads in the kernels of single operations.

Each thread computes a range of tiles of `IMAGES_PER_TILE` images. The tiles depend only on the
batch, so results do not depend on the number of threads.
"""

IMAGES_PER_TILE = 16
