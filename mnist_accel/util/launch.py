"""The first actions of a process that runs a command: Ctrl-C, and the search path of modules.

This module is imported before all others, because their imports take a quarter of a second. It
imports only modules that are loaded quickly.
"""

# `signal` itself imports `enum` and `collections`; Ctrl-C in this time would print a traceback.
import _signal as signal  # type: ignore[import-not-found]
import os
import sys

PROGRAMS = ("mnist_accel", "benchmarks")
_EXIT_CODE = 128 + signal.SIGINT


def runs_a_command() -> bool:
    """Return whether this process is `mnist-accel …`, or `python -m` with one of `PROGRAMS`."""
    if sys.argv[:1] != ["-m"]:
        name = sys.argv[0] if sys.argv else ""
        return name.replace("\\", "/").rpartition("/")[2].removesuffix(".exe") == "mnist-accel"
    words = sys.orig_argv
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    return module.partition(".")[0] in PROGRAMS


def search_current_folder_last() -> None:
    """Move the current folder, which Python searches first with `-m`, to the end of the path.

    Otherwise a file of the user, such as `numpy.py` or `random.py`, would hide a library.
    """
    if not sys.flags.safe_path:
        sys.path.append(sys.path.pop(0))


def exit_on_ctrl_c() -> None:
    """Let Ctrl-C end this process with one line, unless it is ignored or handled already."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


def is_benchmark() -> bool:
    """Return whether this process runs the benchmarks."""
    return "benchmarks" in sys.modules


def program() -> str:
    """Return the name of the program, for messages."""
    return "python -m benchmarks" if is_benchmark() else "mnist-accel"


def _exit(signum: int, frame: object) -> None:
    try:
        os.write(2, f"{program()}: interrupted\n".encode())
    finally:  # also if stderr is closed
        os._exit(_EXIT_CODE)
