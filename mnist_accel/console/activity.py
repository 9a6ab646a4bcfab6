"""Shows what a long operation does and how long it has run, so that no wait is silent."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TextIO

from rich.live import Live
from rich.text import Text

from backends import compiled_kernels, needed_kernels
from mnist_accel.console.notebook import NotebookLine, is_notebook
from mnist_accel.console.terminal import is_animated, make_console
from mnist_accel.util.text import displayable

DELAY_SECONDS = 1.0  # shorter operations are not shown
TERMINAL_SECONDS = 0.5  # time between two updates of the line on a terminal
PIPE_SECONDS = 2.0  # time between two lines elsewhere

_is_hidden = ContextVar("_is_hidden", default=False)


@contextmanager
def hide_activities(hidden: bool) -> Iterator[None]:
    """Show no activities that begin in the block, if `hidden` is True."""
    token = _is_hidden.set(hidden)
    try:
        yield
    finally:
        _is_hidden.reset(token)


@contextmanager
def activity(text: str, stream: TextIO, *, detail: Callable[[], str] = str) -> Iterator[None]:
    """Show a text with the elapsed seconds while the block runs, if it takes more than a second.

    On a terminal and in a notebook, one line is updated. Elsewhere, a line is printed every few
    seconds. The last line states the duration; it is missing if the block raises an error.

    Args:
        text: what the block does.
        stream: the stream to print on.
        detail: returns what has been done so far; called from another thread.
    """
    if _is_hidden.get():
        yield
        return
    console = make_console(stream)
    show_line = NotebookLine().show if is_notebook(stream) else console.print
    started = time.perf_counter()
    finished, was_shown = threading.Event(), threading.Event()
    live = Live(
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=stream is sys.stderr,  # Python warnings appear above the line
    )

    def line() -> str:
        parts = filter(None, (f"{text}: {time.perf_counter() - started:.0f} s", detail()))
        return displayable("; ".join(parts), stream)

    def update() -> None:
        live.update(Text(line(), no_wrap=True, overflow="ellipsis"), refresh=True)

    def show() -> None:
        if finished.wait(DELAY_SECONDS):
            return
        was_shown.set()
        if not is_animated(console):
            show_line(line())
            while not finished.wait(PIPE_SECONDS):
                show_line(line())
            return
        with live:
            update()
            while not finished.wait(TERMINAL_SECONDS):
                update()

    def show_until_closed() -> None:
        with suppress(OSError):  # the main thread notices that the stream is closed
            show()

    thread = threading.Thread(target=show_until_closed, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
    if was_shown.is_set():
        end = f"{text}: finished after {time.perf_counter() - started:.1f} s"
        show_line(displayable(end, stream))


@contextmanager
def preparation(stream: TextIO, text: str = "preparing") -> Iterator[None]:
    """Show a text and the progress of a block that may compile kernels."""
    compiled_before, needed_before = len(compiled_kernels), len(needed_kernels)

    def detail() -> str:
        number = len(compiled_kernels) - compiled_before
        needed = len(needed_kernels) - needed_before
        if number == 0:
            return ""
        limit = f" of at most {needed}" if number <= needed else ""
        return f"compiling kernel {number}{limit} (kept for later runs)"

    with activity(text, stream, detail=detail):
        yield
