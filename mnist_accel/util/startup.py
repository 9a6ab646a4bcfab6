"""The start and the end of a process that runs a command.

This module is imported before all others, because their imports take a quarter of a second.
"""

import atexit
import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_EXIT_CODE = 128 + signal.SIGINT
_REPEAT_SECONDS = 0.1


def runs_a_command() -> bool:
    """Return whether this process is `mnist-accel …` or `python -m mnist_accel… …`."""
    if sys.argv[:1] != ["-m"]:
        return Path(sys.argv[0] if sys.argv else "").stem == "mnist-accel"
    words = sys.orig_argv
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    return module.partition(".")[0] == "mnist_accel"


def exit_on_ctrl_c() -> None:
    """Let Ctrl-C end this process with one line, unless it is ignored or handled already."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


def end_quickly() -> None:
    """Let Python end without a search for reference cycles, which takes 0.5 s with Numba loaded."""
    atexit.register(gc.freeze)


def interrupt_on_ctrl_c() -> None:
    """Let Ctrl-C raise `KeyboardInterrupt` again, after the imports."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def repeat_lost_ctrl_c() -> Iterator[None]:
    """Repeat a Ctrl-C in the block until its `KeyboardInterrupt` reaches the program.

    LLVM calls Python functions while it compiles kernels. An exception cannot leave such a call, so
    Python reports it to `sys.unraisablehook` and discards it. The call then has no effect, which
    can cause an error that only states a consequence of Ctrl-C.
    """
    from _thread import interrupt_main
    from threading import Timer

    report = sys.unraisablehook
    repetition: Timer | None = None

    def repeat(unraisable: "UnraisableHookArgs") -> None:
        nonlocal repetition
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            report(unraisable)
            return
        repetition = Timer(_REPEAT_SECONDS, interrupt_main)
        repetition.start()

    sys.unraisablehook = repeat
    try:
        yield
    except Exception as error:
        if repetition is not None:
            raise KeyboardInterrupt from error
        raise
    finally:
        sys.unraisablehook = report
        if repetition is not None:
            repetition.cancel()


def _exit(signum: int, frame: FrameType | None) -> None:
    with suppress(OSError):  # stderr is closed
        os.write(2, b"mnist-accel: interrupted\n")
    os._exit(_EXIT_CODE)
