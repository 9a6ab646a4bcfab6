"""Limits the number of threads that BLAS uses in this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np  # noqa: F401  # loads the BLAS library, so that threadpoolctl finds it
import threadpoolctl


class BlasThreads:
    """The only code that changes the number of BLAS threads, which is one per process.

    Calls of `limit` may overlap in several Python threads and end in any order. While any is
    active, BLAS uses the smallest of their limits. After the last one, BLAS uses the same number of
    threads as before the first one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._libraries: list[Any] = (
            threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
        )
        self._limits: list[int] = []
        self._unlimited: list[int] = []

    def default(self) -> int:
        """Return the number of threads that BLAS uses without a limit; 1 if no BLAS is found."""
        with self._lock:
            return max(self._unlimited if self._limits else self._current(), default=1)

    @contextmanager
    def limit(self, threads: int | None) -> Iterator[None]:
        """Limit BLAS to `threads` threads in the body of a `with` statement; None: no limit."""
        if threads is None:
            yield
            return
        with self._lock:
            if not self._limits:
                self._unlimited = self._current()
            self._limits.append(threads)
            self._apply()
        try:
            yield
        finally:
            with self._lock:
                self._limits.remove(threads)
                self._apply()

    def _current(self) -> list[int]:
        return [library.num_threads or 1 for library in self._libraries]

    def _apply(self) -> None:
        """Set the smallest active limit; if none is active, restore the original numbers."""
        for library, unlimited in zip(self._libraries, self._unlimited, strict=True):
            # In recent versions of threadpoolctl, `set_num_threads` has no effect in a thread if
            # another thread has called it before. Here the lock and `_limits` coordinate threads.
            set_threads = getattr(library, "_real_set_num_threads", library.set_num_threads)
            set_threads(min(self._limits) if self._limits else unlimited)


BLAS_THREADS = BlasThreads()
