"""Handles errors of stdout and stderr, such as a closed stream, a closed pipe or a full disk."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, cast

from mnist_accel.util.text import displayable


class StreamError(OSError):
    """stdout or stderr cannot be written, for a reason other than a closed pipe."""


@contextmanager
def checked_streams() -> Iterator[None]:
    """Distinguish errors of stdout and stderr from errors of other files.

    A stream discards its output if the parent process has closed it. It also discards all further
    output after its terminal is closed, or after it fails.

    Raises:
        BrokenPipeError: the reader of stdout or stderr closed the pipe; both streams now discard
            their output.
        StreamError: stdout or stderr cannot be written for another reason, such as a full disk.
    """
    stdout, stderr = (_CheckedStream(name, getattr(sys, name)) for name in ("stdout", "stderr"))
    with redirect_stdout(cast(TextIO, stdout)), redirect_stderr(cast(TextIO, stderr)):
        try:
            yield
            stdout.flush()
        except BrokenPipeError:
            stdout.discard_output()
            stderr.discard_output()
            raise
        finally:
            stdout.stop_escaping()
            stderr.stop_escaping()


class _CheckedStream:
    """A text stream that raises `StreamError` if it cannot be written.

    Control characters are escaped, because names in files may contain them. Characters that the
    encoding lacks become simple ones, or question marks.

    Args:
        name: name of the stream, for the error message.
        stream: the stream; None if the parent process has closed it.
        escapes: whether control characters are escaped.
    """

    def __init__(self, name: str, stream: TextIO | None, *, escapes: bool = True) -> None:
        self._name = name
        self._stream = stream or Path(os.devnull).open("w")  # noqa: SIM115
        self._is_terminal = self._stream.isatty()
        self._escapes = escapes

    @property
    def for_control(self) -> "_CheckedStream":
        """The same stream without escaping, for text with the control sequences of rich."""
        return _CheckedStream(self._name, self._stream, escapes=False)

    def stop_escaping(self) -> None:
        """Write text unchanged from now on, for the exit handlers of other libraries.

        Colorama, which Numba initializes, keeps this stream and resets the colors at exit.
        """
        self._escapes = False

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._stream, attribute)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(displayable(text, self._stream) if self._escapes else text)
        except OSError as error:
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._fail(error)

    def discard_output(self) -> None:
        """Discard what is written from now on, including the buffer that Python flushes at exit."""
        with Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), self._stream.fileno())

    def _fail(self, error: OSError) -> None:
        """Raise an error, unless the terminal was closed. SIGHUP then decides about the command."""
        if isinstance(error, BrokenPipeError):
            raise error
        if sys.platform == "win32" and error.errno == errno.EINVAL:  # its code for a closed pipe
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error
        self.discard_output()
        if self._is_terminal and error.errno == errno.EIO:
            return
        raise StreamError(f"cannot write to {self._name}: {error.strerror or error}") from error
