"""What the devices of this machine can do at best, measured in the same run as everything else.

Arithmetic: the product of two large float32 matrices, of which a good BLAS spends nearly all time
in fused multiply-adds. Memory: a copy of an array that fits no cache.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import Backend, available_backends, get_backend
from benchmarks.host import usable_cores

MATRIX_SIDE = {"cpu": 2048, "gpu": 8192}
COPY_BYTES = 128 * 2**20
REPETITIONS = 7

Clock = Callable[[], float]


@dataclass(frozen=True)
class Ceilings:
    """The best rates of a device.

    Attributes:
        flops_per_s: float32 multiplications and additions.
        bytes_per_s: read and written.
        how: in words, how each was measured.
    """

    flops_per_s: float
    bytes_per_s: float
    how: dict[str, str]


def measure_ceilings() -> dict[str, Ceilings]:
    """Return what each device does at best: "cpu", and "gpu" where CuPy can use one."""
    ceilings = {"cpu": processor_ceilings()}
    if available_backends()["cupy"].ok:
        ceilings["gpu"] = device_ceilings(get_backend("cupy"))
    return ceilings


def processor_ceilings(clock: Clock = time.perf_counter) -> Ceilings:
    """Return what the CPU does, with all threads that the process may use."""
    side, threads = MATRIX_SIDE["cpu"], usable_cores()
    a, b = _matrices(side)
    product = np.empty_like(a)
    source, target = _source_and_target()
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:

        def copy() -> None:
            for done in [pool.submit(np.copyto, *part) for part in parts]:
                done.result()

        return _ceilings(
            lambda: np.matmul(a, b, out=product), copy, clock, side, f"by {threads} threads"
        )


def device_ceilings(backend: Backend, clock: Clock = time.perf_counter) -> Ceilings:
    """Return what the device of a backend does, by its own library."""
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
    """Return two arrays that were written to: untouched pages are one page of zeros, in cache."""
    return np.full(COPY_BYTES, 1, np.uint8), np.full(COPY_BYTES, 2, np.uint8)


def _ceilings(
    multiply: Callable[[], Any], copy: Callable[[], Any], clock: Clock, side: int, by: str
) -> Ceilings:
    return Ceilings(
        flops_per_s=2.0 * side**3 / _shortest(multiply, clock),
        bytes_per_s=2.0 * COPY_BYTES / _shortest(copy, clock),
        how={
            "flops_per_s": f"float32 product of two {side}×{side} matrices",
            "bytes_per_s": f"copy of {COPY_BYTES // 2**20} MiB {by}, in and out",
        },
    )


def _shortest(work: Callable[[], Any], clock: Clock) -> float:
    """Return the seconds of the fastest repetition: a ceiling is what nothing disturbed."""
    seconds = []
    for _ in range(REPETITIONS):
        started = clock()
        work()
        seconds.append(clock() - started)
    return min(seconds)
