"""What Numba makes of this machine: its threads, its cache, and whether a compiled kernel runs."""

import importlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class NumbaState:
    """How kernels run here.

    Attributes:
        compiles: False where Numba was told to run the kernels as Python.
        threads: size of Numba's pool.
        threading_layer: what the pool is built on; empty where nothing is compiled.
        cache: folder of compiled code; None where nothing is compiled.
    """

    compiles: bool
    threads: int
    threading_layer: str
    cache: Path | None


def probe() -> NumbaState:
    """Run a kernel on all threads, compiled now or taken from the cache, and look how that went.

    Raises:
        Exception: whatever Numba runs into, such as a threading layer that cannot be loaded.
        RuntimeError: the kernel computed something else than NumPy.
    """
    numba = importlib.import_module("numba")
    parallel = importlib.import_module("backends.numba_kernels.parallel")
    pooling = importlib.import_module("backends.numba_kernels.pooling")
    images = parallel.IMAGES_PER_CHUNK + 1  # one more than a single thread is given
    x = np.arange(images * 16, dtype=np.float32).reshape(images, 1, 4, 4)
    y = np.empty((images, 1, 2, 2), np.float32)
    with parallel.one_parallel_kernel_at_a_time:
        pooling.avg_pool2d_batch(x, 2, 2, y)
    if not np.allclose(y, x.reshape(images, 1, 2, 2, 2, 2).mean(axis=(3, 5))):
        raise RuntimeError("a compiled kernel gave a wrong result")
    compiles = not numba.config.DISABLE_JIT
    return NumbaState(
        compiles=compiles,
        threads=numba.config.NUMBA_NUM_THREADS,
        threading_layer=numba.threading_layer() if compiles else "",
        cache=Path(pooling.avg_pool2d_batch.stats.cache_path) if compiles else None,
    )
