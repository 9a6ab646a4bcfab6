"""Runs a command by name, and turns errors into one line on stderr and an exit code."""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from backends import unknown_name
from mnist_accel._version import __version__
from mnist_accel.commands import compare, data, doctor, evaluate, gradcheck, predict, train
from mnist_accel.commands.exit_codes import EXIT_BROKEN_PIPE, EXIT_DATA, explain_error
from mnist_accel.commands.parser import Parser
from mnist_accel.commands.streams import StreamError, checked_streams


class Command(Protocol):
    """What each module of a command provides; its docstring is the text of its `--help`."""

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command to its parser."""

    def run(self, args: argparse.Namespace) -> int:
        """Run the command and return its exit code."""


COMMANDS: dict[str, Command] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "compare": compare,
    "gradcheck": gradcheck,
    "data": data,
    "doctor": doctor,
}


def main(argv: Sequence[str] | None = None, *, prog: str = "mnist-accel") -> int:
    """Run a command, and return its exit code.

    Args:
        argv: the name of the command and its arguments; None for those of the process.
        prog: the name of the program, for messages.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        return run_command(arguments[0], arguments[1:], prog=f"{prog} {arguments[0]}")
    return _guard(lambda: _show_overview(arguments, prog=prog), prog=prog)


def run_command(name: str, arguments: Sequence[str], *, prog: str) -> int:
    """Parse the arguments of a command, run it, and return its exit code."""
    command = COMMANDS[name]

    def work() -> int:
        parser = Parser(prog=prog, description=command.__doc__)
        command.add_arguments(parser)
        return command.run(parser.parse_args(arguments))

    return _guard(work, prog=prog)


def _show_overview(arguments: list[str], *, prog: str) -> int:
    """Print the help or the version, or an error if the first argument is no command."""
    parser = Parser(prog=prog, description=_list_commands())
    parser.usage = "%(prog)s [-h] [--version] COMMAND ..."
    parser.add_argument("--version", action="version", version=f"mnist-accel {__version__}")
    if arguments and not arguments[0].startswith("-"):
        parser.error(unknown_name("command", arguments[0], COMMANDS))
    parser.parse_known_args(arguments)
    parser.error(f"the first argument must be a command: {', '.join(COMMANDS)}")


def _list_commands() -> str:
    """Return the help text: each command with the first line of its docstring."""
    summaries = {name: (command.__doc__ or "").split("\n")[0] for name, command in COMMANDS.items()}
    lines = [
        "The classic from-scratch MNIST networks, on NumPy, Numba and CuPy.",
        "",
        "commands (each has its own --help):",
        *(f"  {name:<10} {summary}" for name, summary in summaries.items()),
    ]
    return "\n".join(lines)


def _guard(work: Callable[[], int], *, prog: str) -> int:
    """Return the exit code of `work`, or of the error that it or a standard stream raised."""
    try:
        with checked_streams():
            return _explain_errors(work, prog=prog)
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE
    except StreamError as error:
        message = str(error)
        # The failed stream now discards its output, so this ends even if both streams fail.
        return _guard(lambda: _fail(prog, message, EXIT_DATA), prog=prog)


def _explain_errors(work: Callable[[], int], *, prog: str) -> int:
    """Return the exit code of `work`; print an error that the user can fix as one line.

    Raises:
        BrokenPipeError, StreamError: stdout or stderr cannot be written.
    """
    try:
        with _warnings_in_one_line():
            return work()
    except SystemExit as stop:  # argparse has already printed its message
        return int(stop.code or 0)
    except (BrokenPipeError, StreamError):
        raise
    except BaseException as error:
        explained = explain_error(error)
        if explained is None:
            raise
        return _fail(prog, *explained)


def _fail(prog: str, message: str, exit_code: int) -> int:
    """Print a message on stderr and return the exit code."""
    print(f"{prog}: {message}", file=sys.stderr)
    return exit_code


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Print warnings without the line of code that issued them."""

    def show(message: Warning | str, *details: object, **options: object) -> None:
        print(f"warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
