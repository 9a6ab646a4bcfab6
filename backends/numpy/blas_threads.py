"""The number of threads of BLAS, which all computations of the process share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np  # noqa: F401  # loads the BLAS library, so that threadpoolctl finds it
import threadpoolctl


class BlasThreads:
    """The only owner of the process-wide limit of BLAS threads.

    Blocks may overlap in several threads and end in any order. While any of them is active, the
    smallest limit of the active blocks holds, and the last one restores the numbers from before the
    first one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._libraries: list[Any] = (
            threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
        )
        self._limits: list[int] = []
        self._unlimited: list[int] = []

    def default(self) -> int:
        """Return the number of threads without a limit; 1 without a known BLAS."""
        with self._lock:
            return max(self._unlimited if self._limits else self._current(), default=1)

    @contextmanager
    def limit(self, threads: int | None) -> Iterator[None]:
        """Limit BLAS to a number of threads within the block; None for no limit."""
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
        """Set the smallest limit, or the numbers from before the first one."""
        for library, unlimited in zip(self._libraries, self._unlimited, strict=True):
            # threadpoolctl 3.6 ignores calls of `set_num_threads` from all threads except the first
            # that called it. Here the lock and `_limits` coordinate the threads.
            set_threads = getattr(library, "_real_set_num_threads", library.set_num_threads)
            set_threads(min(self._limits) if self._limits else unlimited)


BLAS_THREADS = BlasThreads()
