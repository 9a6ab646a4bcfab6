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

    Nothing is changed where the system cannot bind threads to cores or forbids it, nor if the
    caller may use only one core.
    """

    def __init__(self) -> None:
        self._workers: list[int] = []
        self._cores: set[int] = set()
        self._core_of_caller = -1
        self._current_core = _current_core()

    def add_worker(self) -> None:
        """Place the calling thread, which is a new worker."""
        worker = threading.get_native_id()
        self._workers.append(worker)
        self._place([worker])

    def leave_core(self) -> None:
        """Place the workers before they get tasks of the calling thread."""
        if self._current_core is None or (core := self._current_core()) == self._core_of_caller:
            return
        self._core_of_caller = core
        self._cores = os.sched_getaffinity(0) - {core}
        self._place(self._workers)

    def _place(self, workers: list[int]) -> None:
        if not self._cores:
            return
        try:
            for worker in workers:
                os.sched_setaffinity(worker, self._cores)
        except OSError:  # not permitted, for example in a sandbox; results do not depend on it
            self._current_core, self._cores = None, set()


def _current_core() -> Callable[[], int] | None:
    """Return a function that returns the number of the caller's core; None if there is none."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    # `PyDLL` keeps the global interpreter lock: the call takes 0.04 µs.
    return getattr(ctypes.PyDLL(None), "sched_getcpu", None)
