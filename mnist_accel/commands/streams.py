"""stdout and stderr as a command may find them: closed, full, or with nobody left who reads."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast


class StreamError(OSError):
    """stdout or stderr cannot be written, though there is somebody who reads it."""


@contextmanager
def checked_streams() -> Iterator[None]:
    """Tell errors of stdout and stderr from those of files, which may be errors of the same disk.

    A stream that was closed by whoever started the process becomes one that leads nowhere, and so
    does one that fails.

    Raises:
        BrokenPipeError: whoever read stdout or stderr has gone; both lead nowhere from now on.
        StreamError: one of them cannot be written for another reason; it leads nowhere from now on.
    """
    stdout, stderr = (_CheckedStream(name, getattr(sys, name)) for name in ("stdout", "stderr"))
    with redirect_stdout(cast(TextIO, stdout)), redirect_stderr(cast(TextIO, stderr)):
        try:
            yield
            stdout.flush()
        except BrokenPipeError:
            stdout.lead_nowhere()
            stderr.lead_nowhere()
            raise


class _CheckedStream:
    """A stream whose errors say that they are its own."""

    def __init__(self, name: str, stream: TextIO | None) -> None:
        self._name = name
        self._stream = stream or Path(os.devnull).open("w")  # noqa: SIM115

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._stream, attribute)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._fail(error)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._fail(error)

    def lead_nowhere(self) -> None:
        """Discard what is written from now on, and by Python on its way out."""
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())

    def _fail(self, error: OSError) -> NoReturn:
        if isinstance(error, BrokenPipeError):
            raise error
        self.lead_nowhere()
        raise StreamError(f"cannot write to {self._name}: {error.strerror or error}") from error
