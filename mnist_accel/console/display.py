"""What is printed while a network trains, and the tables and bars of the other commands.

Results go to stdout, all the rest to stderr. Colour and movement are for terminals alone: rich
looks after `NO_COLOR`, and a stream that is no terminal, or a dumb one, gets plain lines.
"""

import math
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self, TextIO

import numpy as np
from numpy.typing import ArrayLike
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

# Seconds between two drawings of the progress bar.
REFRESH_SECONDS = 0.1
# The time left is worked out from the pace of about so many seconds; of the last half of the
# training once that is longer, so that it takes the pauses for evaluation into account.
PACE_SECONDS = 10.0
NARROWEST_BAR = 8
# Of the lines of a table where there is no terminal to ask.
PIPE_WIDTH = 100

_NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d*)?(e[-+]?\d+)? ?%?|inf|nan|[-–]?", re.IGNORECASE)


class TrainingDisplay:
    """Shows how a training gets on; a context manager.

    On a terminal there is a progress bar; elsewhere, a line each time something is logged.

    Args:
        total_steps: number of the last step; None or 0 where that is not known.
        quiet: print nothing but warnings.
        progress: whether to show the bar or the lines; without, there are only notes and epochs.
        stdout: where results go.
        stderr: where all the rest goes.
        clock: returns seconds.
    """

    def __init__(
        self,
        total_steps: int | None,
        *,
        quiet: bool,
        progress: bool,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total_steps = total_steps or None
        self._quiet = quiet
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self._clock = clock
        self._console = _console(self._stderr)
        shown = progress and not quiet
        self._moves = shown and self._console.is_terminal and self._console.is_interactive
        self._logs = shown and not self._moves
        self._pace = _Pace(self._total_steps)
        self._live: Live | None = None
        self._started = clock()
        self._drawn = -math.inf

    def __enter__(self) -> Self:
        self._started = self._clock()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._wipe()

    def note(self, text: str) -> None:
        """Print a line on stderr."""
        if not self._quiet:
            self._console.print(_encodable(text, self._stderr))

    def warn(self, text: str) -> None:
        """Print a warning on stderr, even if the display is quiet."""
        line = Text(_encodable(f"warning: {text}", self._stderr))
        line.stylize("yellow", 0, len("warning:"))
        self._console.print(line)

    def advance(
        self,
        *,
        step: int,
        epoch: int,
        loss: float,
        accuracy: float | None,
        images_per_s: float | None,
    ) -> None:
        """Move the bar to a step; cheap enough to be called at every one.

        Args:
            step: number of the last step done.
            epoch: number of the epoch under way.
            loss: of the last steps.
            accuracy: of the last steps, 0…1; None if not known.
            images_per_s: pace of the last steps; None if not known.
        """
        now = self._clock()
        if now - self._drawn < REFRESH_SECONDS and step != self._total_steps:
            return
        self._drawn = now
        self._pace.record(step, now)
        if not self._moves:
            return
        figures = _Figures(
            epoch=f"epoch {epoch}",
            steps=self._count(step),
            loss=f"loss {loss:.4f}",
            accuracy=None if accuracy is None else f"accuracy {accuracy:6.2%}",
            images_per_s=None if images_per_s is None else f"{images_per_s:7,.0f} images/s",
            time=self._time(step, now),
        )
        self._draw(figures.render(step, self._total_steps, self._console.width))

    def log_line(
        self,
        *,
        step: int,
        epoch: int,
        loss: float,
        accuracy: float | None,
        images_per_s: float | None,
        lr: float | None = None,
    ) -> None:
        """Print a line of figures on stderr where there is no bar to show them."""
        if not self._logs:
            return
        parts = [
            f"epoch {epoch}",
            f"step {self._count(step)}",
            f"loss {loss:.4f}",
            None if accuracy is None else f"accuracy {accuracy:.2%}",
            None if lr is None else f"lr {lr:.3g}",
            None if images_per_s is None else f"{images_per_s:,.0f} images/s",
            self._time(step, self._clock()),
        ]
        self.note("  ".join(part for part in parts if part))

    def epoch_line(self, text: str) -> None:
        """Print a result on stdout."""
        if self._quiet:
            return
        if self._stdout.isatty():
            self._wipe()  # the bar is drawn anew, below this line, at the next step
        self._stdout.write(_encodable(text, self._stdout) + "\n")
        self._stdout.flush()

    def _count(self, step: int) -> str:
        if self._total_steps is None:
            return f"{step:,}"
        total = f"{self._total_steps:,}"
        return f"{step:>{len(total)},}/{total}"

    def _time(self, step: int, now: float) -> str:
        if self._total_steps is None:
            return f"{format_duration(now - self._started)} so far"
        left = self._pace.seconds_left(step)
        return f"{'-:--' if left is None else format_duration(left)} left"

    def _draw(self, bar: Table) -> None:
        if self._live is None:
            self._live = Live(
                console=self._console,
                auto_refresh=False,  # no thread that would compete with the training
                transient=True,
                redirect_stdout=False,
                redirect_stderr=self._stderr is sys.stderr,  # others' warnings go above the bar
            )
            self._live.start()
        self._live.update(bar, refresh=True)

    def _wipe(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._drawn = -math.inf


class _Figures:
    """The figures beside a progress bar, of which a narrow terminal shows fewer."""

    # What is given up first, to leave room for the bar.
    _DISPENSABLE = ("images_per_s", "steps", "accuracy", "time", "epoch")

    def __init__(self, **texts: str | None) -> None:
        self._texts = {name: text for name, text in texts.items() if text}

    def render(self, step: int, total_steps: int | None, width: int) -> Table:
        """Lay out the bar and as many figures as fit into `width` cells."""
        texts = dict(self._texts)
        bar_cells = 0 if total_steps is None else NARROWEST_BAR + 2
        for name in self._DISPENSABLE:
            if sum(len(text) + 2 for text in texts.values()) - 2 + bar_cells <= width:
                break
            texts.pop(name, None)
        line = Table.grid(padding=(0, 2, 0, 0), pad_edge=False, expand=total_steps is not None)
        cells: list[Text | ProgressBar] = [Text(text) for text in texts.values()]
        for _ in cells:
            line.add_column(no_wrap=True)
        if total_steps is not None:
            line.add_column(ratio=1)
            cells.append(ProgressBar(total=total_steps, completed=step))
        line.add_row(*cells)
        return line


class _Pace:
    """Steps per second as an exponential moving average over time."""

    def __init__(self, total_steps: int | None) -> None:
        self._total_steps = total_steps
        self._first: float | None = None
        self._last: tuple[int, float] | None = None
        self._steps_per_s: float | None = None

    def record(self, step: int, now: float) -> None:
        # The first step seen only sets the mark: a resumed training does not begin at 0, and the
        # first step of all may have waited for a compiler.
        if self._first is None or self._last is None:
            self._first = now
        else:
            last_step, last = self._last
            seconds = now - last
            if seconds <= 0:
                return
            pace = (step - last_step) / seconds
            memory = max(PACE_SECONDS, (now - self._first) / 2)
            keep = 0.0 if self._steps_per_s is None else math.exp(-seconds / memory)
            self._steps_per_s = keep * (self._steps_per_s or 0.0) + (1 - keep) * pace
        self._last = step, now

    def seconds_left(self, step: int) -> float | None:
        if not self._steps_per_s or self._total_steps is None:
            return None
        return (self._total_steps - step) / self._steps_per_s


def format_duration(seconds: float) -> str:
    """Write seconds as minutes and seconds, 0:07, or with hours, 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def format_pace(images_per_s: float) -> str:
    """Write images per second with three digits: 410 k, 31.2 k, 4.37 k, 850."""
    for unit, letter in ((1e6, " M"), (1e3, " k")):
        if images_per_s >= 0.9995 * unit:
            digits = f"{images_per_s / unit:.3g}"
            return f"{float(digits):g}{letter}"
    return f"{images_per_s:.3g}"


def print_probabilities(
    probabilities: ArrayLike, class_names: Sequence[str], stream: TextIO
) -> None:
    """Print the probability of each class as a number and a bar.

    Args:
        probabilities: (C,) fractions of 1.
        class_names: C names.
        stream: where to print; gets plain ASCII if it can print nothing else.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    blocks = _encodable("█▏▎▍▌▋▊▉", stream) == "█▏▎▍▌▋▊▉"
    names = [_encodable(name, stream) for name in class_names]
    name_cells = max(map(cell_len, names))
    console = _console(stream)
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        bar = _block_bar(value) if blocks else "#" * round(40 * value)
        padded = name + " " * (name_cells - cell_len(name))
        line = Text(f"{padded}  {value:8.2%}  {bar}".rstrip())
        if index == values.argmax():
            line.stylize("bold green")
        console.print(line)


def _block_bar(fraction: float, *, cells: int = 40) -> str:
    """Draw a bar to the eighth of a cell."""
    full, eighths = divmod(round(8 * cells * fraction), 8)
    return "█" * full + " ▏▎▍▌▋▊▉"[eighths].strip()


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]], stream: TextIO) -> None:
    """Print a table with columns of numbers flush right.

    A terminal gets it fitted to its width. Elsewhere the last column is folded between words at
    `PIPE_WIDTH`, and nothing else is, so that paths and figures stay whole.

    Raises:
        ValueError: a row has not as many cells as there are headers.
    """
    table = [[_encodable(str(cell), stream) for cell in row] for row in (headers, *rows)]
    columns = list(zip(*table, strict=True))
    numeric = [all(_NUMBER.fullmatch(cell) for cell in column[1:]) for column in columns]
    console = _console(stream)
    if console.is_terminal:
        fitted = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for header, right in zip(table[0], numeric, strict=True):
            fitted.add_column(Text(header), justify="right" if right else "left", overflow="fold")
        for row in table[1:]:
            fitted.add_row(*map(Text, row))
        console.print(fitted, soft_wrap=False)
        return
    widths = [max(map(cell_len, column)) for column in columns]
    room = max(1, PIPE_WIDTH - sum(width + 2 for width in widths[:-1]))
    table = [line for row in table for line in _fold_last(row, room)]
    widths[-1] = max(cell_len(row[-1]) for row in table)
    table.insert(1, ["-" * width for width in widths])
    for row in table:
        cells = []
        for cell, width, right in zip(row, widths, numeric, strict=True):
            padding = " " * (width - cell_len(cell))
            cells.append(padding + cell if right else cell + padding)
        stream.write("  ".join(cells).rstrip() + "\n")


def _fold_last(row: list[str], width: int) -> Iterator[list[str]]:
    """Yield a row as several, which hold its last cell between words at a width."""
    parts = textwrap.wrap(row[-1], width, break_long_words=False, break_on_hyphens=False)
    yield [*row[:-1], *(parts[:1] or [""])]
    for part in parts[1:]:
        yield [*[""] * len(row[:-1]), part]


def format_confusion_matrix(
    matrix: ArrayLike, class_names: Sequence[str], *, width: int = 80
) -> str:
    """Lay out a confusion matrix in lines of at most `width` characters.

    Args:
        matrix: (C, C) counts; rows are true classes, columns predicted ones.
        class_names: C names; longer ones than fit are cut.
        width: of the lines; counts are never cut for it.

    Returns:
        Several lines of ASCII, apart from the names, without a line feed at the end. A dot stands
        for 0. Columns of named classes are numbered, and the rows show which is which.
    """
    counts = np.asarray(matrix)
    numbers = [str(index) for index in range(len(class_names))]
    if list(class_names) == numbers:
        labels = numbers
    else:
        labels = [f"{number} {name}" for number, name in zip(numbers, class_names, strict=True)]
    column = 1 + max(len(str(counts.max(initial=0))), len(numbers[-1]))
    room = max(width - column * len(numbers), len("true"))
    labels = [label[:room] for label in labels]
    first = max(len("true"), *map(len, labels))
    lines = [
        " " * (first + column - 1) + "predicted",
        "true".ljust(first) + "".join(number.rjust(column) for number in numbers),
    ]
    for label, row in zip(labels, counts, strict=True):
        cells = (str(count) if count else "." for count in row)
        lines.append(label.ljust(first) + "".join(cell.rjust(column) for cell in cells))
    return "\n".join(lines)


class _Console(Console):
    """A console that says when its reader has gone, where rich's would end the process."""

    def on_broken_pipe(self) -> None:
        """Leave it to the caller, who may have something to save."""
        raise BrokenPipeError


def _console(stream: TextIO) -> Console:
    """Make a console that prints text as it is, and animates and colours only on terminals."""
    return _Console(
        file=stream,
        force_terminal=stream.isatty(),
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


def _encodable(text: str, stream: TextIO) -> str:
    """Replace what the stream cannot print by question marks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
