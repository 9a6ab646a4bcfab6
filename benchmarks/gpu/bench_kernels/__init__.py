"""Each CUDA kernel beside its naive version: the same results, and the times of both.

One file per kernel family shows the launch of the fast kernel, the naive kernels that compute the
same, and the sizes. `python -m benchmarks.gpu.bench_kernels` runs them on a GPU; the tests run the
same comparisons at small sizes on the emulator.
"""
