"""The start and the end of a process that runs a command.

This module is imported before all others, because their imports take a quarter of a second.
"""

import atexit
import gc
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

_EXIT_CODE = 128 + signal.SIGINT


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


def _exit(signum: int, frame: FrameType | None) -> None:
    with suppress(OSError):  # stderr is closed
        os.write(2, b"mnist-accel: interrupted\n")
    os._exit(_EXIT_CODE)
