"""Keeps worker threads off the core of the thread that calls them.

A virtual machine may start nine of ten tasks on the core of their caller, although another core is
idle. Both threads then share that core for milliseconds, and two threads take as long as one.
"""

import ctypes
import os
import threading
from collections.abc import Callable


class Placement:
    """The cores on which worker threads may run: all of their caller's except its current one.

    If there are fewer other cores than workers, these may use the core of the caller, too. Nothing
    is changed where the system cannot bind threads to cores or forbids it.

    Args:
        workers: number of worker threads.
    """

    def __init__(self, workers: int) -> None:
        self._count = workers
        self._workers: list[int] = []
        self._cores: set[int] = set()
        self._caller: tuple[int, set[int]] | None = None  # its core, and those that it may use
        self._current_core = _current_core()

    def add_worker(self) -> None:
        """Place the calling thread, which is a new worker."""
        worker = threading.get_native_id()
        self._workers.append(worker)
        self._place([worker])

    def leave_core(self) -> None:
        """Place the workers before they get tasks of the calling thread."""
        if self._current_core is None:
            return
        try:
            caller = self._current_core(), os.sched_getaffinity(0)
        except OSError:  # not permitted, for example in a sandbox; results do not depend on it
            self._current_core = None
            return
        if caller != self._caller:
            self._caller = caller
            core, allowed = caller
            self._cores = allowed - {core} if len(allowed) > self._count else allowed
            self._place(self._workers)

    def _place(self, workers: list[int]) -> None:
        if self._current_core is None or not self._cores:
            return
        try:
            for worker in workers:
                os.sched_setaffinity(worker, self._cores)
        except OSError:  # not permitted, as above
            self._current_core = None


def _current_core() -> Callable[[], int] | None:
    """Return a function that returns the number of the caller's core; None if there is none."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    # `PyDLL` keeps the global interpreter lock: the call takes 0.04 µs.
    return getattr(ctypes.PyDLL(None), "sched_getcpu", None)
