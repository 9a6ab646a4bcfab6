"""What the command `population` shows while members train."""

import sys
import threading
import time
from collections.abc import Sequence
from typing import Self, TextIO

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from mnist_accel.console.progress import REFRESH_SECONDS, format_duration
from mnist_accel.console.terminal import is_animated, make_console
from mnist_accel.populations.member import MemberResult
from mnist_accel.util.text import displayable

_LINE_SECONDS = 2.5  # without a terminal, the time between two lines


class PopulationDisplay:
    """A progress bar for all members with their counts and accuracies; a context manager.

    If the stream is no terminal, it prints lines instead.

    Args:
        total_steps: steps of the members that this process trains.
        members: number of members of the population.
        earlier: results of members that an earlier process trained.
        workers: number of members that train at the same time.
        quiet: show nothing.
        stream: the stream to print on; None for stderr.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        members: int,
        earlier: Sequence[MemberResult],
        workers: int,
        quiet: bool,
        stream: TextIO | None = None,
    ) -> None:
        self._stream = stream or sys.stderr
        console = make_console(self._stream)
        self._members = members
        self._workers = workers
        self._quiet = quiet
        self._shows_bar = not quiet and is_animated(console)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=self._stream is sys.stderr,
            disable=not self._shows_bar,
            expand=True,
        )
        self._task = self._bar.add_task("", total=total_steps)
        self._lock = threading.Lock()
        self._steps = 0
        self._ended = 0
        self._failed = 0
        self._accuracies: list[float] = []
        for result in earlier:
            self._count(result)
        self._started = time.monotonic()
        self._refreshed = self._started
        self._total_steps = total_steps

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Print a line on stderr, unless the display is quiet."""
        if not self._quiet:
            print(displayable(text, self._stream), file=self._stream, flush=True)

    def add_steps(self, steps: int) -> None:
        """Count steps of any member; may be called from several threads."""
        with self._lock:
            self._steps += steps
            self._refresh()

    def skip_steps(self, steps: int) -> None:
        """Leave out steps of any member that an earlier process did, or that it does not need."""
        with self._lock:
            self._total_steps -= steps
            self._bar.update(self._task, total=self._total_steps)

    def add_result(self, result: MemberResult) -> None:
        """Count a member that has ended."""
        with self._lock:
            self._count(result)
            self._refresh()
        if result.error:
            self.note(f"member {result.member} failed: {result.error}")

    def _count(self, result: MemberResult) -> None:
        self._ended += 1
        self._failed += bool(result.error)
        if result.test_accuracy is not None:
            self._accuracies.append(result.test_accuracy)

    def _refresh(self) -> None:
        """Redraw the bar or print a line, unless the last one is too recent."""
        now = time.monotonic()
        if now - self._refreshed < (REFRESH_SECONDS if self._shows_bar else _LINE_SECONDS):
            return
        self._refreshed = now
        if self._shows_bar:
            self._bar.update(self._task, completed=self._steps, description=self._describe())
            if self._bar.live.is_started:
                self._bar.refresh()
            else:
                self._bar.start()
        else:
            self.note(self._describe())

    def _describe(self) -> str:
        """Return counts, accuracies and remaining time in one line."""
        running = min(self._workers, self._members - self._ended)
        parts = [f"{self._ended} of {self._members} done", f"{running} running"]
        if self._failed:
            parts.append(f"{self._failed} failed")
        if self._accuracies:
            mean = sum(self._accuracies) / len(self._accuracies)
            parts.append(f"best {max(self._accuracies):.2%}, mean {mean:.2%}")
        if self._steps:
            elapsed = time.monotonic() - self._started
            left = elapsed * (self._total_steps - self._steps) / self._steps
            parts.append(f"{format_duration(max(0.0, left))} left")
        return "  ".join(parts)
