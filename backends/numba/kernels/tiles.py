"""How threads share a batch in the kernels of single operations.

A batch is divided into tiles of `IMAGES_PER_TILE` images, and each kernel computes a range of
tiles. The tiles depend on the batch alone, so results do not depend on the number of threads.
"""

IMAGES_PER_TILE = 16
