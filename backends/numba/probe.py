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
    """Run a small kernel, compiled now or taken from the cache, and look how that went.

    Raises:
        Exception: whatever Numba runs into, such as a cache that can be put nowhere.
        RuntimeError: the kernel computed something else than NumPy.
    """
    config = importlib.import_module("numba").config
    kernels = importlib.import_module("backends.numba.kernels.pooling")
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    y = np.empty((1, 1, 2, 2), np.float32)
    kernels.avg_pool2d(x, 2, 2, y, 0, 1)
    if not np.array_equal(y.ravel(), [2.5, 4.5, 10.5, 12.5]):
        raise RuntimeError("a compiled kernel gave a wrong result")
    compiles = not config.DISABLE_JIT
    cache = Path(kernels.avg_pool2d.stats.cache_path) if compiles else None
    return NumbaState(compiles, config.NUMBA_NUM_THREADS, cache)
