"""The command line: `mnist-accel NAME …`, and `python -m mnist_accel.NAME …` for the same.

Each module of this package is one command: `add_arguments` declares its flags, `run` does the work
and returns the exit code, and its docstring is its help. Here they meet: errors that a user can
mend become one line on stderr and an exit code.
"""

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn, TextIO

from mnist_accel._version import __version__
from mnist_accel.array_layer import BackendUnavailableError
from mnist_accel.errors import DataError, DivergedError, UsageError

COMMANDS = ("train", "evaluate", "predict", "compare", "gradcheck", "data", "doctor")

EXIT_USAGE = 2
EXIT_BACKEND = 3
EXIT_DATA = 4
EXIT_DIVERGED = 5
EXIT_COMPARISON = 6
EXIT_INTERRUPTED = 130

EXIT_CODES = """exit codes:
  0 done; 2 wrong usage; 3 the backend asked for cannot run; 4 data or a file missing, corrupt or
  refused; 5 the loss diverged; 6 a comparison failed; 130 interrupted"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def __init__(self, *, prog: str, description: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None, *, prog: str = "mnist-accel") -> int:
    """Run a command.

    Args:
        argv: the command's name and its arguments; those of the process if None.
        prog: what the user typed, for messages.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        return _run(arguments[0], arguments[1:], prog=f"{prog} {arguments[0]}")
    parser = Parser(prog=prog, description=_summary_of_all())
    parser.add_argument("--version", action="version", version=f"mnist-accel {__version__}")
    parser.add_argument("command", choices=COMMANDS, help="what to do; each has its own --help")
    try:
        parser.parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    raise AssertionError("a known command was dispatched above")


def run_module(name: str) -> NoReturn:
    """Run a command as `python -m mnist_accel.NAME`, and end the process with its exit code."""
    sys.exit(_run(name, sys.argv[1:], prog=f"python -m mnist_accel.{name}"))


def _run(name: str, arguments: list[str], *, prog: str) -> int:
    """Parse the arguments of a command and run it."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by whoever started the process
            setattr(sys, stream, Path(os.devnull).open("w"))  # noqa: SIM115
    module = _module(name)
    parser = Parser(prog=prog, description=module.__doc__)
    module.add_arguments(parser)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            exit_code: int = module.run(parser.parse_args(arguments))
        sys.stdout.flush()
    except SystemExit as stop:  # argparse, after its own message
        return int(stop.code or 0)
    except UsageError as error:
        return _fail(prog, error, EXIT_USAGE)
    except BackendUnavailableError as error:
        return _fail(prog, error, EXIT_BACKEND)
    except DataError as error:
        return _fail(prog, error, EXIT_DATA)
    except DivergedError as error:
        return _fail(prog, error, EXIT_DIVERGED)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except MemoryError as error:
        return _fail(prog, f"not enough memory: {error}; use smaller batches or layers", EXIT_USAGE)
    except OSError as error:
        # Files that fail are DataErrors, so it is stdout. Python must not try to flush it once more
        # on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # whoever read it has gone: `… | head`
            return 0
        return _fail(prog, f"cannot write to stdout: {error.strerror or error}", EXIT_DATA)
    return exit_code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as one line, without the place in the code that it comes from."""
    print(f"warning: {message}", file=sys.stderr)


def _fail(prog: str, error: Exception | str, exit_code: int) -> int:
    print(f"{prog}: {error}", file=sys.stderr)
    return exit_code


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"mnist_accel.commands.{name}")


def _summary_of_all() -> str:
    """Return a line for each command: the first of its module's docstring."""
    lines = ["The classic from-scratch MNIST networks, on NumPy, Numba and CuPy.", "", "commands:"]
    for name in COMMANDS:
        first_line = (_module(name).__doc__ or "").partition("\n")[0]
        lines.append(f"  {name:<10} {first_line}")
    return "\n".join(lines)
