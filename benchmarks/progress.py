"""Shows how far a run of the suite has come, in place of pytest's own display."""

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

# Where there is no terminal, a line every so many measurements.
LINES_EVERY = 25


class ProgressPlugin:
    """A bar with the time left on a terminal, a line now and then elsewhere."""

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
        """Say what could not even be collected, and end: to pytest that is an interruption."""
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
        """Name what is measured."""
        name = nodeid.partition("[")[2].removesuffix("]")
        if self._task is not None:
            self._progress.update(self._task, description=f"{name:<45.45}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Say what failed."""
        if report.failed:
            self._console.print(f"{report.nodeid}: {report.longreprtext}", markup=False)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Move on."""
        self._done += 1
        if self._task is not None:
            self._progress.advance(self._task)
        if not self._console.is_terminal and self._done % LINES_EVERY == 0:
            print(self._line(), file=sys.stderr, flush=True)

    def _line(self) -> str:
        """Say how far it is: the order is random, so the rest is as slow as what is done."""
        pace_s = (self._clock() - self._started) / self._done
        left = about(pace_s * (self._total - self._done))
        return f"{self._done} of {self._total} done, about {left} left"

    def pytest_sessionfinish(self) -> None:
        """Put the bar away."""
        self._progress.stop()


def about(seconds: float) -> str:
    """Return a time as one would say it: 40 s, 2 min, 1 h 5 min."""
    if seconds < 60:
        return f"{round(seconds)} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def pytest_configure(config: pytest.Config) -> None:
    """Take part."""
    config.pluginmanager.register(ProgressPlugin())
