"""Errors that a user can fix.

Wrong arguments of a Python function raise `ValueError` or `TypeError`, as usual in Python. The
classes here are for other causes: files, the command line, a training that diverges.

Messages quote names and texts of files, servers and other programs, so their control characters are
escaped and their length is limited.
"""

from collections.abc import Iterator
from contextlib import contextmanager

_MAX_CHARS = 2000


def printable(text: str) -> str:
    """Return text as one line that is safe to print, whatever it quotes.

    Line breaks become spaces. Other control characters are escaped, including those that change the
    direction of writing. The middle of a long text is left out, because a message ends with its
    remedy.
    """
    if len(text) > _MAX_CHARS:
        text = f"{text[: _MAX_CHARS // 2]} … {text[-_MAX_CHARS // 2 :]}"
    return escaped(" ".join(text.splitlines()))


def escaped(text: str) -> str:
    """Return text with control characters escaped, including tabs and line feeds."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class MnistAccelError(Exception):
    """Base class. The message is one line that states the problem and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class DataWarning(UserWarning):
    """A data set is accepted, but probably contains a mistake."""


class UsageError(MnistAccelError):
    """The arguments of a command are invalid or contradict each other."""


class MissingPackageError(MnistAccelError, ImportError):
    """A package that is only needed for some purposes is not installed."""


class DataError(MnistAccelError):
    """A data set or a file is missing, corrupt or not accepted."""


class CheckpointError(DataError):
    """A checkpoint cannot be read or written."""


class DivergedError(MnistAccelError):
    """The loss or a weight became NaN or infinite.

    Attributes:
        step: the step in which this happened, counted from 1.
        tensor: name of the first tensor of that step with a value that is not finite.
    """

    def __init__(self, message: str, *, step: int, tensor: str) -> None:
        super().__init__(message)
        self.step = step
        self.tensor = tensor


@contextmanager
def file_errors(action: str) -> Iterator[None]:
    """Raise a `DataError` in place of an `OSError` from the block: "cannot ACTION: …"."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot {action}: {error.strerror or error}") from error


@contextmanager
def usage_errors() -> Iterator[None]:
    """Raise a `UsageError` in place of a `ValueError` or `TypeError` from the block."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
