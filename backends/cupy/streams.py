"""Streams that trainings and predictions use in turn."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Streams:
    """The streams of a backend, each used by one training or prediction at a time.

    CuPy's memory pool gives freed memory only to allocations on the same stream. If each training
    had its own stream, the memory of one would be lost to the next.

    Args:
        cupy: the module `cupy`.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._lock = threading.Lock()
        self._free: dict[int, list[Any]] = defaultdict(list)  # by number of the GPU

    @contextmanager
    def borrow(self) -> Iterator[Any]:
        """Return a stream of the current GPU, which is the current stream within the context.

        It begins after the work of the previous current stream, and is synchronized at the end.
        """
        cuda = self._cupy.cuda
        with self._lock:
            free = self._free[cuda.Device().id]
            stream = free.pop() if free else cuda.Stream(non_blocking=True)
        try:
            cuda.get_current_stream().synchronize()
            with stream:
                try:
                    yield stream
                finally:  # after an interrupt, too, the caller reads the results
                    stream.synchronize()
        finally:
            with self._lock:
                free.append(stream)
