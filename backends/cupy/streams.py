"""The streams of trainings and predictions."""

import threading
import weakref
from collections import defaultdict
from typing import Any


class Streams:
    """The streams of a backend.

    CuPy's memory pool gives freed memory only to allocations on the same stream. If each training
    created a stream, the memory of one would be lost to the next. Therefore a training takes over
    the stream of one that has ended.

    Args:
        cupy: the module `cupy`.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._lock = threading.Lock()
        self._free: dict[int, list[Any]] = defaultdict(list)  # by number of the GPU

    def take(self, owner: object) -> Any:
        """Return a stream of the current GPU that no other owner has as long as `owner` exists."""
        cuda = self._cupy.cuda
        with self._lock:
            free = self._free[cuda.Device().id]
            stream = free.pop() if free else cuda.Stream(non_blocking=True)
        weakref.finalize(owner, free.append, stream).atexit = False
        return stream
