"""Waits until the two cores of a run exchange data quickly.

A virtual machine with two cores may get other cores of its host from minute to minute. If they are
far from each other, threads that exchange data, as in the training of small networks, take up to
three times as long. The median of a ratio over both states depends on how long each of them lasts,
so a full run measures in the faster one.

With more cores, the distance depends on where the system puts each thread, and says nothing about
the machine.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from backends import backend_availability

# The fastest of several bursts counts, because a thread may start late.
BURSTS, BARRIERS = 20, 200
# If a barrier takes more than this many times as long as with near cores, cores are far.
FAR = 2.0
# For seconds, both may be hardware threads of one core, which pass barriers fastest but compute
# slowly. So this percentile of all barriers, not the minimum, is the time with near cores.
NEAR_PERCENTILE = 10
# Only the first barriers of a wait count, so that a long wait does not change the time with near
# cores, except in the first two turns.
MAX_COUNTED = 20
RETRY_S = 1.0
ANNOUNCED_S = 10.0  # shorter waits are not announced


class Cores:
    """Measures a barrier before each turn of a run, and waits while barriers take long.

    Args:
        barriers_ns: nanoseconds of the barriers that the run has measured before.
        wait_s: seconds to wait in total.
        announce: prints a line for the user.
    """

    def __init__(
        self, *, barriers_ns: Iterable[float], wait_s: float, announce: Callable[[str], None]
    ) -> None:
        self._measured = list(barriers_ns)
        self._left_s = wait_s
        self._announce = announce

    def wait(self) -> float | None:
        """Wait until barriers are fast, or until no time to wait is left.

        Returns:
            The nanoseconds of a barrier; None if they cannot be measured.
        """
        began = time.monotonic()
        end, announce_at = began + self._left_s, began + ANNOUNCED_S
        waited: list[float] = []
        while (now := barrier_ns()) is not None:
            waited.append(now)
            near = near_ns([*self._measured, *waited[:MAX_COUNTED]])
            if now <= FAR * near or time.monotonic() >= end:
                break
            if time.monotonic() >= announce_at:
                announce_at = math.inf
                self._announce(
                    f"The cores exchange data {now / near:.1f} times as slowly as before; "
                    f"waiting up to {(end - time.monotonic()) / 60:.0f} min for faster ones"
                )
            time.sleep(RETRY_S)
        self._measured += waited[-1:]
        self._left_s = max(0.0, end - time.monotonic())
        return now


def near_ns(barriers_ns: Sequence[float]) -> float:
    """Return the nanoseconds of a barrier with near cores, from all barriers of a run."""
    return float(np.percentile(barriers_ns, NEAR_PERCENTILE))


def barrier_ns() -> float | None:
    """Return the nanoseconds in which a thread on each core passes a barrier.

    Returns:
        None if the process does not have exactly two cores, a thread cannot be bound to a core, or
        Numba cannot run.
    """
    if not hasattr(os, "sched_setaffinity") or not backend_availability("numba").ok:
        return None
    cores = os.sched_getaffinity(0)
    if len(cores) != 2:
        return None
    from backends.numba.kernels.barrier import BARRIER_OPEN, pass_barriers
    from backends.numba.memory import aligned_zeros

    counter = aligned_zeros((1,), "int64")

    def fastest_burst(core: int) -> float:
        try:
            os.sched_setaffinity(0, {core})  # of this thread
        except OSError:
            counter[0] = BARRIER_OPEN  # the other thread must not wait
            raise
        seconds = []
        for burst in range(BURSTS):
            began = time.perf_counter()
            pass_barriers(counter, burst * BARRIERS, BARRIERS)
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    with ThreadPoolExecutor(2) as pool:
        try:
            return 1e9 * min(pool.map(fastest_burst, cores)) / BARRIERS
        except OSError:  # not permitted, for example in a sandbox
            return None
