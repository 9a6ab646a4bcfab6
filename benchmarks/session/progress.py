"""A pytest plugin that shows the progress of a run and the time left, in place of pytest's display.

pytest's own display has no estimate of the time left, and prints a line for each of thousands of
tests.
"""

import sys
import time
from collections.abc import Callable

import pytest
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

LINES_EVERY = 25  # without a terminal, a line is printed after this many measurements


class ProgressPlugin:
    """Shows a progress bar on a terminal, and a line every 25 measurements elsewhere."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task: TaskID | None = None
        self._total = self._done = 0

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Print a collection error and exit with 1; pytest's own code 2 would mean interrupted."""
        if report.failed:
            self._console.print(str(report.longrepr), markup=False)
            pytest.exit(f"{report.nodeid} cannot be imported", returncode=1)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Start the bar."""
        self._total = len(session.items)
        self._console.print(f"{self._total} measurements, in random order")
        self._started = self._clock()
        self._progress.start()
        self._task = self._progress.add_task("measuring", total=self._total)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Show the name of the measurement."""
        name = nodeid.partition("[")[2].removesuffix("]")
        if self._task is not None:
            self._progress.update(self._task, description=f"{name:<45.45}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print the error of a failed measurement."""
        if report.failed:
            self._console.print(f"{report.nodeid}: {report.longreprtext}", markup=False)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Advance the bar, or print a line."""
        self._done += 1
        if self._task is not None:
            self._progress.advance(self._task)
        if not self._console.is_terminal and self._done % LINES_EVERY == 0:
            # The order is random, so the mean time of the measurements done predicts the rest.
            seconds = (self._clock() - self._started) / self._done
            left = duration_text(seconds * (self._total - self._done))
            line = f"{self._done} of {self._total} done, about {left} left"
            print(line, file=sys.stderr, flush=True)

    def pytest_sessionfinish(self) -> None:
        """Remove the bar."""
        self._progress.stop()


def duration_text(seconds: float) -> str:
    """Return a duration as text: 40 s, 2 min, 1 h 5 min."""
    if seconds < 60:
        return f"{round(seconds)} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin."""
    config.pluginmanager.register(ProgressPlugin())
