"""Limits of time and memory for the process of a fuzzing worker, and what may be printed."""

import contextlib
import faulthandler
import time
from collections.abc import Iterator
from pathlib import Path

MAX_SECONDS = 10.0
MAX_BYTES = 3 * 2**29  # 1.5 GB, in addition to what the libraries take
MAX_MESSAGE = 2500


class BrokenPromiseError(Exception):
    """A reader took too long, printed something unsafe, or raised an undocumented error."""


def limit_memory() -> None:
    """Make allocations beyond `MAX_BYTES` fail with a MemoryError."""
    import resource  # does not exist on Windows

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MAX_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


@contextlib.contextmanager
def limited_time() -> Iterator[None]:
    """Require that the body of the `with` statement ends within `MAX_SECONDS`.

    If it does not end after twice this time, end the process.
    """
    started = time.monotonic()
    faulthandler.dump_traceback_later(2 * MAX_SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
    seconds = time.monotonic() - started
    if seconds > MAX_SECONDS:
        raise BrokenPromiseError(f"took {seconds:.1f} s")


def check_text(text: str) -> None:
    """Require that each line is short and printable."""
    for line in text.split("\n"):
        if not line.isprintable():
            raise BrokenPromiseError(f"printed control characters: {line[:200]!a}")
        if len(line) > MAX_MESSAGE:
            raise BrokenPromiseError(f"printed a line of {len(line)} characters: {line[:200]}")
