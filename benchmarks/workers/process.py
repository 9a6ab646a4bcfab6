"""Starts workers, and asks them with a time limit."""

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from benchmarks.host import ROOT
from benchmarks.workers.messages import Answer, Refused, Request, decode_answer, encode

_A = TypeVar("_A", bound=Answer)
_END_S = 5.0  # seconds in which a worker may end by itself


class WorkerError(Exception):
    """A row has no time, and its worker may be gone; the message states the reason.

    Attributes:
        failed: False if the contender does not support the row.
    """

    def __init__(self, reason: str, *, failed: bool = True) -> None:
        super().__init__(reason)
        self.failed = failed


class WorkerProcess:
    """A worker that has been started.

    Args:
        contender: its contender.
        cores: cores that it may use; None for those of this process.
        environment: variables that are added to those of this process.
    """

    def __init__(
        self,
        contender: str,
        *,
        cores: Sequence[int] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed in `close`
        self._cores = cores
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "benchmarks.workers.worker", contender],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            preexec_fn=None if cores is None else self._bind,  # before threads start
        )
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def is_running(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, request: Request, expected: type[_A], *, limit_s: float) -> _A:
        """Send a request and return the answer; the worker is ended if none arrives.

        Raises:
            WorkerError: the worker refuses, crashed, needs longer than `limit_s` seconds, or
                sends something else.
        """
        self.send(request)
        return self.receive(expected, limit_s=limit_s)

    def send(self, request: Request) -> None:
        """Send a request."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended; `receive` states how
            self._process.stdin.write(encode(request))
            self._process.stdin.flush()

    def receive(self, expected: type[_A], *, limit_s: float) -> _A:
        """Return the answer to the last request; errors as `ask`."""
        try:
            line = self._lines.get(timeout=limit_s)
        except queue.Empty:
            self.close()
            raise WorkerError(f"no answer within {limit_s:g} s; its process was ended") from None
        if not line:
            raise WorkerError(self._how_it_ended())
        try:
            answer = decode_answer(line)
        except ValueError:
            answer = None
        if isinstance(answer, Refused):
            raise WorkerError(answer.reason, failed=answer.failed)
        if not isinstance(answer, expected):
            self.close()
            raise WorkerError(f"its process sent something that is no answer: {line[:40]!r}")
        return answer

    def close(self) -> None:
        """End the worker and the processes that it started."""
        if self.is_running:
            _signal_group(self._process)
        self._process.wait()
        self._reader.join(_END_S)  # a child that survives keeps the pipe open
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            assert pipe is not None
            with suppress(OSError):  # stdin may contain a request that was not read
                pipe.close()

    def _bind(self) -> None:
        os.sched_setaffinity(0, self._cores or ())

    def _read(self) -> None:
        """Put each line into the queue, then an empty one; blocks while there is none."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def _how_it_ended(self) -> str:
        code = self._process.wait(timeout=_END_S)
        self._errors.seek(0)
        printed = self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        return f"its process crashed ({how})" + (f": {printed}" if printed else "")


def _signal_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and, where the system has process groups, its children."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            process.kill()
    else:
        process.kill()
