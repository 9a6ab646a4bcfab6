"""How the kernels of single operations share a batch among threads.

A batch is cut into chunks of `IMAGES_PER_TILE` images, and each kernel works on a range of chunks;
threads take ranges, and kernels know nothing of threads. Because the cuts depend on the batch
alone, results do not depend on the number of threads.
"""

IMAGES_PER_TILE = 16
