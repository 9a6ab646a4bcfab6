"""The phases of a run: how long each takes, and a word to who waits."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# Seconds of silence after which a user is told what takes so long.
PATIENCE_S = 1.0
# Seconds from one such word to the next.
PROGRESS_S = 5.0


@dataclass
class Phases:
    """Seconds of wall-clock time by phase of a run."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, phase: str) -> Iterator[None]:
        """Count the time of a block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            self.seconds[phase] = self.seconds.get(phase, 0.0) + elapsed


@contextmanager
def getting_ready(note: Callable[[str], None]) -> Iterator[None]:
    """Say so where a block that may compile takes a while, and how long it took.

    Args:
        note: prints a line.
    """
    started = time.perf_counter()
    is_ready = threading.Event()
    told = threading.Event()

    def tell() -> None:
        if is_ready.wait(PATIENCE_S):
            return
        told.set()
        note("getting ready; the first time on a machine this compiles for half a minute")
        while not is_ready.wait(PROGRESS_S):
            note(f"getting ready for {time.perf_counter() - started:.0f} s")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        is_ready.set()
        teller.join()
    if told.is_set():
        note(f"ready after {time.perf_counter() - started:.1f} s")
