"""What `train` prints: notes and warnings, a progress bar or log lines, and results."""

import math
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Self, TextIO

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column
from rich.text import Text

from mnist_accel.console.activity import activity, preparation
from mnist_accel.console.notebook import NotebookLine, is_notebook
from mnist_accel.console.terminal import is_animated, make_console
from mnist_accel.util.text import displayable

REFRESH_SECONDS = 0.1  # minimum time between two updates of the progress bar
# The remaining time is estimated from the speed over this period. It is long enough to average over
# the evaluations between epochs.
SPEED_PERIOD_SECONDS = 120.0
MIN_BAR_WIDTH = 8  # characters
NOTEBOOK_BAR_WIDTH = 20
# Without a terminal, the longest time without a line: in seconds, and as a fraction of the elapsed
# time. The longer one applies, so a training of hours has fewer lines per minute.
MAX_SILENT_SECONDS = 2.5
MAX_SILENT_FRACTION = 0.05


@dataclass(frozen=True)
class Figures:
    """The state of a training, for the display and for `metrics.jsonl`.

    Attributes:
        step: number of the last completed step, from 1.
        epoch: number of the current epoch, from 1.
        loss: mean loss of the last steps.
        accuracy: fraction of the images of the last steps that were classified correctly; None if
            the network has no classes.
        lr: learning rate of the next step.
        images_per_s: throughput of the last steps.
    """

    step: int
    epoch: int
    loss: float
    accuracy: float | None
    lr: float
    images_per_s: float


class TrainingDisplay:
    """Prints results on stdout and everything else on stderr; a context manager.

    If stderr is a terminal, it shows a progress bar, and in a notebook, a line of figures that is
    updated. Otherwise, it prints a line at each log step, and additional lines if the log steps are
    seconds apart.

    Args:
        total_steps: number of the last step of the training.
        quiet: print only warnings.
        progress: show the bar or the log lines, not only notes and epochs.
        stdout: stream for results; None for `sys.stdout`.
        stderr: stream for everything else; None for `sys.stderr`.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        quiet: bool,
        progress: bool,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total_steps = total_steps
        self._quiet = quiet
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self._clock = clock
        self._console = make_console(self._stderr)
        on_terminal = is_animated(self._console)
        shows_progress = progress and not quiet
        is_cell = shows_progress and is_notebook(self._stderr)
        self._notebook_line = NotebookLine() if is_cell else None
        self._shows_bar = shows_progress and on_terminal
        self._prints_lines = shows_progress and not on_terminal and not is_cell
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            console=self._console,
            auto_refresh=False,  # a thread would compete with the training
            speed_estimate_period=SPEED_PERIOD_SECONDS,
            transient=True,
            # What callbacks print, and Python's warnings, appear above the bar.
            redirect_stdout=self._stdout is sys.stdout and self._stdout.isatty(),
            redirect_stderr=self._stderr is sys.stderr,
            get_time=clock,
            disable=not self._shows_bar,
            expand=True,
        )
        self._task = self._bar.add_task("", total=total_steps)
        self._updated_at = -math.inf
        self._started_at = self._printed_at = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def activity(self, text: str) -> AbstractContextManager[None]:
        """Return a context that shows a text and the elapsed time, if its block takes long."""
        self._bar.stop()
        return nullcontext() if self._quiet else activity(text, self._stderr)

    def preparation(self, text: str) -> AbstractContextManager[None]:
        """Return a context that shows a text and the progress of a block that may compile kernels.

        The text is shown if the block takes long.
        """
        return nullcontext() if self._quiet else preparation(self._stderr, text)

    def note(self, text: str) -> None:
        """Print a line on stderr."""
        if not self._quiet:
            self._printed_at = self._clock()
            self._console.print(displayable(text, self._stderr))

    def warn(self, text: str) -> None:
        """Print a warning on stderr, even if the display is quiet."""
        line = Text(displayable(f"warning: {text}", self._stderr))
        line.stylize("yellow", 0, len("warning:"))
        self._console.print(line)

    def result(self, text: str) -> None:
        """Print a line on stdout, unless the display is quiet."""
        if self._quiet:
            return
        if self._stdout.isatty():
            self._bar.stop()  # the next update draws the bar again, below this line
            self._updated_at = -math.inf
        self._printed_at = self._clock()
        self._stdout.write(displayable(text, self._stdout) + "\n")
        self._stdout.flush()

    def update(self, figures: Figures) -> None:
        """Move the bar, at most every `REFRESH_SECONDS` and at the last step.

        Without a terminal, print a line after a long silence.
        """
        now = self._clock()
        step = figures.step
        if now - self._updated_at < REFRESH_SECONDS and step != self._total_steps:
            return
        self._updated_at = now
        self._bar.update(self._task, completed=step)
        max_silence = max(MAX_SILENT_SECONDS, MAX_SILENT_FRACTION * (now - self._started_at))
        if now - self._printed_at >= max_silence:
            self.log(figures)
        if self._notebook_line is not None:
            parts = "  ".join(self._parts(figures).values())
            self._notebook_line.show(f"{parts}  {self._drawn_bar(step)}")
        if self._shows_bar:
            self._bar.update(self._task, description=self._describe(figures))
            if self._bar.live.is_started:
                self._bar.refresh()
            else:
                self._bar.start()  # this also draws the bar

    def log(self, figures: Figures) -> None:
        """Print a line of figures on stderr, unless the progress bar shows them."""
        if self._prints_lines:
            parts = self._parts(figures)
            parts["steps"] = f"step {parts['steps']}"
            parts["images_per_s"] = f"lr {figures.lr:.3g}  {parts['images_per_s']}"
            self.note("  ".join(parts.values()))

    def _drawn_bar(self, step: int) -> str:
        """Return a bar for a notebook, of characters that all fonts have in equal width."""
        done = NOTEBOOK_BAR_WIDTH * step // self._total_steps
        return "█" * done + "░" * (NOTEBOOK_BAR_WIDTH - done)

    def _describe(self, figures: Figures) -> str:
        """Return the figures beside the bar; a narrow terminal shows fewer of them."""
        parts = self._parts(figures)
        for name in ("images_per_s", "steps", "accuracy", "time", "epoch"):
            if len("  ".join(parts.values())) + 2 + MIN_BAR_WIDTH <= self._console.width:
                break
            parts.pop(name, None)
        return "  ".join(parts.values())

    def _parts(self, figures: Figures) -> dict[str, str]:
        """Return the figures as text, in the order in which they are printed."""
        total, accuracy = f"{self._total_steps:,}", figures.accuracy
        return {
            "epoch": f"epoch {figures.epoch}",
            "steps": f"{figures.step:>{len(total)},}/{total}",
            "loss": f"loss {figures.loss:.4f}",
            **({} if accuracy is None else {"accuracy": f"accuracy {accuracy:.2%}"}),
            "images_per_s": f"{figures.images_per_s:,.0f} images/s",
            "time": f"{self._remaining_time(figures.step)} left",
        }

    def _remaining_time(self, step: int) -> str:
        speed = self._bar.tasks[0].speed  # steps per second
        return format_duration((self._total_steps - step) / speed) if speed else "-:--"


def format_duration(seconds: float) -> str:
    """Format seconds as minutes and seconds, 0:07, or with hours, 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
