"""The command line: `mnist-accel NAME …`, and `python -m mnist_accel.NAME …` for the same.

Each module of this package is one command: `add_arguments` declares its flags, `run` does the work
and returns the exit code, and its docstring is its help. Here they meet: errors that a user can
mend become one line on stderr and an exit code.
"""

import argparse
import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import NoReturn, TextIO

from backends import BackendUnavailableError, unknown_name
from mnist_accel._version import __version__
from mnist_accel.commands.streams import StreamError, checked_streams
from mnist_accel.errors import DataError, DivergedError, UsageError

COMMANDS = ("train", "evaluate", "predict", "compare", "gradcheck", "data", "doctor")

EXIT_USAGE = 2
EXIT_BACKEND = 3
EXIT_DATA = 4
EXIT_DIVERGED = 5
EXIT_COMPARISON = 6
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE, as shells show it of other programs

EXIT_CODES = """exit codes:
  0 done; 2 wrong usage; 3 the backend asked for cannot run; 4 data or a file missing, corrupt or
  refused; 5 the loss or a weight became NaN or infinite; 6 a comparison failed; 130 interrupted;
  141 whoever read stdout or stderr has gone"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def __init__(
        self, *, prog: str, description: str | None = None, epilog: str = EXIT_CODES
    ) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
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
    return _with_streams(partial(_run_none, arguments, prog=prog), prog=prog)


def run_module(name: str) -> NoReturn:
    """Run a command as `python -m mnist_accel.NAME`, and end the process with its exit code."""
    sys.exit(_run(name, sys.argv[1:], prog=f"python -m mnist_accel.{name}"))


def _run(name: str, arguments: list[str], *, prog: str) -> int:
    """Parse the arguments of a command and run it."""
    return _with_streams(partial(_run_command, name, arguments, prog=prog), prog=prog)


def _with_streams(work: Callable[[], int], *, prog: str) -> int:
    """Do some work and return its exit code, or that of the trouble with stdout and stderr."""
    try:
        with checked_streams():
            return work()
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE
    except StreamError as error:
        return _with_streams(partial(_fail, prog, error, EXIT_DATA), prog=prog)


def _run_none(arguments: list[str], *, prog: str) -> int:
    """Show the help or the version, or say that there is no such command."""
    parser = Parser(prog=prog, description=_summary_of_all())
    parser.add_argument("--version", action="version", version=f"mnist-accel {__version__}")
    parser.add_argument("command", choices=COMMANDS, help="what to do; each has its own --help")
    try:
        if arguments and not arguments[0].startswith("-"):
            parser.error(unknown_name("command", arguments[0], COMMANDS))
        parser.parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    return _fail(prog, "the command comes first, its arguments behind it", EXIT_USAGE)


def _run_command(name: str, arguments: list[str], *, prog: str) -> int:
    """Turn the errors of a command into a line and an exit code.

    Raises:
        BrokenPipeError, StreamError: stdout or stderr cannot be written.
    """
    module = _module(name)
    parser = Parser(prog=prog, description=module.__doc__)
    module.add_arguments(parser)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            exit_code: int = module.run(parser.parse_args(arguments))
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
        return _fail(prog, "interrupted", EXIT_INTERRUPTED)
    except MemoryError as error:
        wanted = f": {error}" if str(error) else ""
        remedy = "use smaller batches or layers, or fewer images"
        return _fail(prog, f"not enough memory{wanted}; {remedy}", EXIT_USAGE)
    except (BrokenPipeError, StreamError):
        raise
    except OSError as error:
        file = f"{error.filename}: " if error.filename is not None else ""
        return _fail(prog, f"{file}{error.strerror or error}", EXIT_DATA)
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
