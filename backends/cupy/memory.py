"""Error messages for allocations that do not fit the memory of the GPU."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def memory_errors(
    cupy: Any, needed: str = "", advice: Callable[[int], str] = lambda free: ""
) -> Iterator[None]:
    """Convert CuPy's out-of-memory errors to `MemoryError`s that name what was needed.

    Args:
        cupy: the module `cupy`.
        needed: beginning of the message, such as "the data set needs 47 MB"; if empty, the message
            of CuPy, which has the size of the last array.
        advice: returns the end of the message for a number of free bytes.

    Raises:
        MemoryError: an allocation inside the context does not fit.
    """
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)  # their local variables hold device memory
        free = free_bytes(cupy)
        needed = needed or str(error).rstrip(".")
        raise MemoryError(
            f"{needed} on the GPU, of which {megabytes(free)} are free{advice(free)}"
        ) from error


def free_bytes(cupy: Any) -> int:
    """Return the number of bytes that can be allocated on the GPU."""
    return int(cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes())


def megabytes(count: int) -> str:
    """Return a number of bytes in MB, as text."""
    return f"{count / 1e6:.0f} MB"
