"""Consoles of rich that print text unchanged, and only color and animate on a terminal."""

from typing import TextIO

from rich.console import Console

from mnist_accel.console.notebook import is_notebook


class _Console(Console):
    """A console that raises an error if its reader has closed the pipe."""

    def on_broken_pipe(self) -> None:
        """Raise the error; rich would exit, and the caller may still have results to save."""
        raise BrokenPipeError


def is_animated(console: Console) -> bool:
    """Return whether lines on the console can be updated in place."""
    return console.is_terminal and console.is_interactive


def make_console(stream: TextIO) -> Console:
    """Return a console that writes to a stream.

    It honors NO_COLOR and dumb terminals, and prints brackets and colons as they are. Texts must be
    `displayable`.
    """
    return _Console(
        file=getattr(stream, "for_control", stream),
        force_terminal=stream.isatty(),  # otherwise FORCE_COLOR would color and animate pipes
        force_jupyter=is_notebook(stream),  # otherwise cells would show what other files get
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )
