"""What this machine can do at best, measured in the same run as everything else.

Arithmetic: the product of two large float32 matrices, of which a good BLAS spends nearly all time
in fused multiply-adds. Memory: a copy of an array that fits no cache, by all threads.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from benchmarks.host import usable_cores

MATRIX_SIDE = 2048
COPY_BYTES = 256 * 2**20
REPETITIONS = 7


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


def measure_ceilings(clock: Callable[[], float] = time.perf_counter) -> Ceilings:
    """Return what the CPU, with all threads that the process may use, does at best."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((MATRIX_SIDE, MATRIX_SIDE), dtype=np.float32)
    b = rng.standard_normal((MATRIX_SIDE, MATRIX_SIDE), dtype=np.float32)
    product = np.empty_like(a)
    product_s = _shortest(lambda: np.matmul(a, b, out=product), clock)
    # Both are written once: pages that nobody has written to are one page of zeros, in the cache.
    source, copy = np.full(COPY_BYTES, 1, np.uint8), np.full(COPY_BYTES, 2, np.uint8)
    threads = usable_cores()
    parts = list(zip(np.array_split(copy, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:

        def copy_all() -> None:
            for done in [pool.submit(np.copyto, *part) for part in parts]:
                done.result()

        copy_s = _shortest(copy_all, clock)
    return Ceilings(
        flops_per_s=2.0 * MATRIX_SIDE**3 / product_s,
        bytes_per_s=2.0 * COPY_BYTES / copy_s,
        how={
            "flops_per_s": f"float32 product of two {MATRIX_SIDE}×{MATRIX_SIDE} matrices",
            "bytes_per_s": f"copy of {COPY_BYTES // 2**20} MiB by {threads} threads, in and out",
        },
    )


def _shortest(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the seconds of the fastest repetition: a ceiling is what nothing disturbed."""
    seconds = []
    for _ in range(REPETITIONS):
        started = clock()
        work()
        seconds.append(clock() - started)
    return min(seconds)
