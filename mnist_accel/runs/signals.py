"""Ctrl-C, SIGTERM and SIGHUP end a run.

They stop a training after the current eager step or compiled chunk, and preparations, such as
compiling, at once.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
def stop_on_signals(
    training: Stoppable, signals: Sequence[int] = _SIGNALS
) -> Iterator[StopRequest]:
    """Let each of the signals stop the training after the current eager step or compiled chunk.

    A second signal has its usual effect at once, but within a second of the first it is ignored.
    Only the main thread can handle signals, so in another thread this does nothing.
    """
    request = StopRequest()

    def handle(signum: int, frame: FrameType | None) -> None:
        if request.signal is None:
            request.signal, request.time = signum, time.monotonic()
            training.request_stop("interrupted")
        elif time.monotonic() - request.time >= _REPEAT_SECONDS:
            signal.signal(signum, previous[signum])
            signal.raise_signal(signum)

    previous = _previous_handlers(signals)
    with _handler(handle, previous):
        yield request


@contextmanager
def interrupt_on_signals() -> Iterator[StopRequest]:
    """Let each signal raise `KeyboardInterrupt`, as Ctrl-C does; the first one is recorded."""
    request = StopRequest()

    def handle(signum: int, frame: FrameType | None) -> None:
        request.signal = request.signal or signum  # Ctrl-C may repeat a signal that was lost
        raise KeyboardInterrupt

    with _handler(handle, _previous_handlers(_SIGNALS)):
        yield request


def _previous_handlers(signals: Sequence[int]) -> dict[int, Any]:
    """Return the handlers that can be replaced and restored, by signal."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers: dict[int, Any] = {signum: signal.getsignal(signum) for signum in signals}
    # None is the handler of a C library, which could not be restored. Shells ignore SIGINT for
    # background processes, and nohup ignores SIGHUP.
    return {n: handler for n, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}


@contextmanager
def _handler(
    handle: Callable[[int, FrameType | None], None], previous: dict[int, Any]
) -> Iterator[None]:
    """Call a function for each of the signals in the block."""
    for signum in previous:
        signal.signal(signum, handle)
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
