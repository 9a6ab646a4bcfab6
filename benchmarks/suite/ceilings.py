"""The highest rates that the devices of this machine reach, measured in the same run as the rows.

Arithmetic: the product of two large float32 matrices, for which a good BLAS spends nearly all time
in fused multiply-adds. Memory: a copy of an array that is larger than the caches.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import Backend, backend_availability, get_backend
from benchmarks.host import usable_cores
from benchmarks.storage.schema import Ceilings, Device
from mnist_accel.util.text import count

MATRIX_SIDE = {"cpu": 2048, "gpu": 8192}
COPY_BYTES = 128 * 2**20
REPETITIONS = 7

Clock = Callable[[], float]


def measure_ceilings() -> dict[Device, Ceilings]:
    """Return the ceilings of "cpu", and of "gpu" if CuPy can use one."""
    ceilings: dict[Device, Ceilings] = {"cpu": cpu_ceilings()}
    if backend_availability("cupy").ok:
        ceilings["gpu"] = gpu_ceilings(get_backend("cupy"))
    return ceilings


def cpu_ceilings(clock: Clock = time.perf_counter) -> Ceilings:
    """Return the ceilings of the CPU, with all threads that the process may use."""
    side, threads = MATRIX_SIDE["cpu"], usable_cores()
    a, b = _matrices(side)
    product = np.empty_like(a)
    source, target = _source_and_target()
    slices = zip(np.array_split(target, threads), np.array_split(source, threads), strict=True)
    pairs = list(slices)
    with ThreadPoolExecutor(threads) as pool:

        def copy() -> None:
            for done in [pool.submit(np.copyto, *pair) for pair in pairs]:
                done.result()

        return _ceilings(
            lambda: np.matmul(a, b, out=product),
            copy,
            clock,
            side,
            f"by {count(threads, 'thread')}",
        )


def gpu_ceilings(backend: Backend, clock: Clock = time.perf_counter) -> Ceilings:
    """Return the ceilings of a backend's device, measured with the backend's own library."""
    side = MATRIX_SIDE["gpu"]
    a, b = (backend.asarray(matrix) for matrix in _matrices(side))
    source, target = (backend.asarray(array) for array in _source_and_target())

    def multiply() -> None:
        backend.xp.matmul(a, b)
        backend.synchronize()

    def copy() -> None:
        target[...] = source
        backend.synchronize()

    with backend.computation(frozenset({"linear"})):
        return _ceilings(multiply, copy, clock, side, "in its memory")


def _matrices(side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((side, side), dtype=np.float32) for _ in range(2))
    return a, b


def _source_and_target() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return two arrays whose pages have been written.

    Linux maps all unwritten pages to one page of zeros, which stays in the cache.
    """
    return np.full(COPY_BYTES, 1, np.uint8), np.full(COPY_BYTES, 2, np.uint8)


def _ceilings(
    multiply: Callable[[], Any], copy: Callable[[], Any], clock: Clock, side: int, by: str
) -> Ceilings:
    return Ceilings(
        flops_per_s=2.0 * side**3 / _min_seconds(multiply, clock),
        bytes_per_s=2.0 * COPY_BYTES / _min_seconds(copy, clock),
        how={
            "flops_per_s": f"float32 product of two {side}×{side} matrices",
            "bytes_per_s": f"copy of {COPY_BYTES // 2**20} MiB {by}, reads and writes counted",
        },
    )


def _min_seconds(work: Callable[[], Any], clock: Clock) -> float:
    """Return the seconds of the fastest repetition, which is disturbed least."""
    seconds = []
    for _ in range(REPETITIONS):
        started = clock()
        work()
        seconds.append(clock() - started)
    return min(seconds)
