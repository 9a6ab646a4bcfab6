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
        threads: how many threads share a batch.
        cache: folder of compiled code; None where nothing is compiled.
    """

    compiles: bool
    threads: int
    cache: Path | None


def probe() -> NumbaState:
    """Run a kernel on all threads, compiled now or taken from the cache, and look how that went.

    Raises:
        Exception: whatever Numba runs into, such as a cache that can be put nowhere.
        RuntimeError: the kernel computed something else than NumPy.
    """
    from backends.numba_backend import NumbaBackend

    config = importlib.import_module("numba").config
    kernels = importlib.import_module("backends.numba_kernels.pooling")
    chunks = importlib.import_module("backends.numba_kernels.chunks")
    images = config.NUMBA_NUM_THREADS * chunks.IMAGES_PER_CHUNK
    x = np.arange(images * 16, dtype=np.float32).reshape(images, 1, 4, 4)
    y = NumbaBackend().avg_pool2d(x, size=2, stride=2)
    if not np.allclose(y, x.reshape(images, 1, 2, 2, 2, 2).mean(axis=(3, 5))):
        raise RuntimeError("a compiled kernel gave a wrong result")
    compiles = not config.DISABLE_JIT
    cache = Path(kernels.avg_pool2d.stats.cache_path) if compiles else None
    return NumbaState(compiles, config.NUMBA_NUM_THREADS, cache)
