"""What is said where the GPU has no room."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def memory_errors(
    cupy: Any, wanted: str = "", advice: Callable[[int], str] = lambda free: ""
) -> Iterator[None]:
    """Have an error of CuPy's say what was wanted and what is free.

    Args:
        cupy: CuPy.
        wanted: such as "the data set needs 47 MB"; if empty, what CuPy says of the last array.
        advice: returns, of so many free bytes, what else there is to say.

    Raises:
        MemoryError: there was no room for what is done within.
    """
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)  # they hold what could be allocated
        free = cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes()
        wanted = wanted or str(error).rstrip(".")
        raise MemoryError(
            f"{wanted} on the GPU, of which {megabytes(free)} are free{advice(free)}"
        ) from error


def megabytes(count: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{count / 1e6:.0f} MB"
