"""A pytest plugin that shows the progress of a run and the time left, in place of pytest's display.

pytest's own display has no estimate of the time left, and prints a line for each of thousands of
tests.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

import pytest
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# Other plugins print a line for the user with this function.
ANNOUNCE = pytest.StashKey[Callable[[str], None]]()
LINES_EVERY = 25  # without a terminal, a line is printed after this many turns


class ProgressPlugin:
    """Shows a progress bar on a terminal, and a line every 25 measurements elsewhere."""

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._started = clock()
        self._console = Console(file=stream or sys.stderr, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            expand=True,
            console=self._console,
            refresh_per_second=2,  # each refresh disturbs the measurement
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._names: dict[str, str] = {}
        self._total = self._done = 0
        # Without a total, the bar moves all the time: libraries are imported, the machine measured.
        self._task = self._progress.add_task("starting", total=None)
        self._progress.start()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Print a collection error and exit with 1; pytest's own code 2 would mean interrupted."""
        if report.failed:
            self._console.print(str(report.longrepr), markup=False)
            pytest.exit(f"{report.nodeid} cannot be imported", returncode=1)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Start to count."""
        self._names = {item.nodeid: _name(item) for item in session.items}
        self._total = len(session.items)
        self._console.print(f"{self._total} turns, in random order")
        self._started = self._clock()
        self._progress.update(self._task, total=self._total)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Show the name of the measurement."""
        self._progress.update(self._task, description=f"{self._names.get(nodeid, nodeid):<40.40}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print the error of a failed measurement."""
        if report.failed:
            name = self._names.get(report.nodeid, report.nodeid)
            self._console.print(f"{name}: {report.longreprtext}", markup=False)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Advance the bar, or print a line."""
        self._done += 1
        self._progress.advance(self._task)
        if not self._console.is_terminal and self._done % LINES_EVERY == 0:
            # The order is random, so the mean time of the turns done predicts the rest.
            seconds = (self._clock() - self._started) / self._done
            left = duration_text(seconds * (self._total - self._done))
            line = f"{self._done} of {self._total} done, about {left} left"
            self._console.print(line)

    def announce(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False)

    def pytest_sessionfinish(self) -> None:
        """Remove the bar."""
        self._progress.stop()


def _name(item: pytest.Item) -> str:
    """Return the case and the contender of a test; in its id, pytest escapes "×"."""
    parameters = vars(item)["callspec"].params
    return f"{parameters['case'].name}, {parameters['contender']}"


def duration_text(seconds: float) -> str:
    """Return a duration as text: 40 s, 2 min, 1 h 5 min."""
    if seconds < 60:
        return f"{round(seconds)} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin, with a stream of its own: pytest captures stderr during a test."""
    stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding)
    plugin = ProgressPlugin(stream)
    config.pluginmanager.register(plugin)
    config.stash[ANNOUNCE] = plugin.announce
