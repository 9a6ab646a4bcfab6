"""Time measurement of the phases of a run, and notes while a phase takes long."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

SILENT_SECONDS = 1.0  # time before the first note
REPEAT_SECONDS = 5.0  # time between two further notes


@dataclass
class Phases:
    """Seconds of wall-clock time per phase of a run."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, phase: str) -> Iterator[None]:
        """Add the time of a block to a phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            self.seconds[phase] = self.seconds.get(phase, 0.0) + elapsed


@contextmanager
def preparation_notes(note: Callable[[str], None]) -> Iterator[None]:
    """Print notes while a block that may compile kernels takes longer than a second.

    Args:
        note: prints a line; called from another thread.
    """
    started = time.perf_counter()
    finished = threading.Event()
    has_printed = threading.Event()

    def print_notes() -> None:
        if finished.wait(SILENT_SECONDS):
            return
        has_printed.set()
        note("preparing; the first time on a machine this compiles for about half a minute")
        while not finished.wait(REPEAT_SECONDS):
            note(f"preparing for {time.perf_counter() - started:.0f} s")

    thread = threading.Thread(target=print_notes, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
    if has_printed.is_set():
        note(f"ready after {time.perf_counter() - started:.1f} s")
