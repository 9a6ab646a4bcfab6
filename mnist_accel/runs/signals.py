"""Ctrl-C and SIGTERM stop a training after the current eager step or compiled chunk."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mnist_accel.training.trainer import Trainer

INTERRUPTED = "interrupted"  # the stop reason of a training that a signal ended


@contextmanager
def stop_on_signals(trainer: Trainer) -> Iterator[None]:
    """Let SIGINT or SIGTERM stop the training after the current eager step or compiled chunk.

    A second signal of the same kind has its usual effect at once. Only the main thread can handle
    signals, so in another thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        trainer.request_stop(INTERRUPTED)
        signal.signal(signum, previous[signum])

    previous: dict[int, Any] = {
        signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)
    }
    for signum, handler in tuple(previous.items()):
        if handler is None:  # set by a C library, which could not be restored
            del previous[signum]
        elif handler is not signal.SIG_IGN:  # shells ignore SIGINT for background processes
            signal.signal(signum, handle)
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
