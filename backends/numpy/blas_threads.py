"""Limits the number of threads that BLAS uses in this process."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np  # loads the BLAS library, so that threadpoolctl finds it
import threadpoolctl


def blas_name() -> str:
    """Return name and version of the BLAS that NumPy was built with, such as "accelerate"."""
    config: Any = np.show_config(mode="dicts")
    blas = config["Build Dependencies"]["blas"]
    version = blas.get("version") or "unknown"
    return str(blas["name"] if version == "unknown" else f"{blas['name']} {version}")


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
        # threadpoolctl knows no Accelerate, but may have found another library, such as SciPy's.
        self._is_limitable = bool(self._libraries) and not blas_name().startswith("accelerate")
        self._limits: list[int] = []
        self._unlimited: list[int] = []

    def default(self) -> int | None:
        """Return the number of threads without a limit; None if NumPy's BLAS cannot be limited."""
        if not self._is_limitable:
            return None
        with self._lock:
            return max(self._unlimited if self._limits else self._current())

    def limit(self, threads: int | None) -> AbstractContextManager[None]:
        """Limit BLAS to `threads` threads in the body of a `with` statement; None: no limit."""
        return nullcontext() if threads is None else self._limit(threads)

    @contextmanager
    def _limit(self, threads: int) -> Iterator[None]:
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
