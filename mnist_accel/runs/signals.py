"""Ctrl-C, SIGTERM and SIGHUP stop a training after the current eager step or compiled chunk."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

# Windows has no SIGHUP, which a terminal sends when it is closed.
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
# Closing a terminal or stopping a service can send several signals, which must not prevent the
# checkpoint from being saved.
_REPEAT_SECONDS = 1.0


class Stoppable(Protocol):
    """Something that ends soon after a request, such as a trainer."""

    def request_stop(self, reason: str) -> None:
        """Make it end; called from a signal handler."""


class StopRequest:
    """The signal that stopped a training.

    Attributes:
        signal: its number; None if there was none.
        time: when it arrived, in seconds of the monotonic clock.
    """

    signal: int | None = None
    time: float = 0.0


@contextmanager
def stop_on_signals(training: Stoppable) -> Iterator[StopRequest]:
    """Let a signal stop the training after the current eager step or compiled chunk.

    A second signal has its usual effect at once, but within a second of the first it is ignored.
    Only the main thread can handle signals, so in another thread this does nothing.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if request.signal is None:
            request.signal, request.time = signum, time.monotonic()
            training.request_stop("interrupted")
        elif time.monotonic() - request.time >= _REPEAT_SECONDS:
            signal.signal(signum, previous[signum])
            signal.raise_signal(signum)

    previous: dict[int, Any] = {signum: signal.getsignal(signum) for signum in _SIGNALS}
    for signum, handler in tuple(previous.items()):
        if handler is None:  # the handler of a C library, which could not be restored
            del previous[signum]
        # Shells ignore SIGINT for background processes, and nohup ignores SIGHUP.
        elif handler is not signal.SIG_IGN:
            signal.signal(signum, handle)
    try:
        yield request
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
