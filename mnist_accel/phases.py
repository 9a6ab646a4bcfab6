"""The phases of a run: how long each takes, and a word to who waits."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# Seconds of silence after which a user is told what takes so long.
PATIENCE_S = 1.0


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
    """Say so where a block that may compile takes a while.

    Args:
        note: prints a line.
    """
    patience = threading.Timer(
        PATIENCE_S,
        note,
        ["getting ready; the first time on a machine this compiles for half a minute"],
    )
    patience.daemon = True
    patience.start()
    try:
        yield
    finally:
        patience.cancel()
