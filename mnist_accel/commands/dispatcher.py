"""Runs a command by name, and turns errors into one line on stderr and an exit code."""

import argparse
import logging
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from backends import flags_in_messages, resolve_name
from mnist_accel._version import __version__
from mnist_accel.commands import (
    compare,
    completion,
    data,
    doctor,
    draw,
    evaluate,
    export,
    gradcheck,
    population,
    predict,
    train,
)
from mnist_accel.commands.exit_codes import (
    EXIT_BROKEN_PIPE,
    EXIT_DATA,
    EXIT_SIGNAL,
    explain_error,
)
from mnist_accel.commands.imports import add_import_argument, import_modules
from mnist_accel.commands.parser import HELP_WIDTH, Parser
from mnist_accel.commands.streams import StreamError, checked_streams
from mnist_accel.errors import UsageError, printable
from mnist_accel.runs.signals import StopRequest, interrupt_on_signals
from mnist_accel.util.startup import repeat_lost_ctrl_c


class Command(Protocol):
    """What each module of a command provides; its docstring is the text of its `--help`.

    Attributes:
        EXAMPLES: arguments of calls, shown in the help.
    """

    __doc__: str | None
    EXAMPLES: Sequence[str]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command to its parser."""

    def run(self, args: argparse.Namespace) -> int:
        """Run the command and return its exit code."""


COMMANDS: dict[str, Command] = {
    "train": train,
    "population": population,
    "evaluate": evaluate,
    "predict": predict,
    "draw": draw,
    "export": export,
    "compare": compare,
    "gradcheck": gradcheck,
    "data": data,
    "doctor": doctor,
    "completion": completion,
}
_WITHOUT_NETWORKS = ("data", "completion")  # these commands take no --import
_EXAMPLES = ("train", "train lenet --epochs 5", "evaluate", "help train")


def main(argv: Sequence[str] | None = None, *, prog: str = "mnist-accel") -> int:
    """Run a command, and return its exit code.

    Args:
        argv: the name of the command and its arguments; None for those of the process.
        prog: the name of the program, for messages.
    """
    if completion.is_requested():
        completion.complete(_parser_of_all(prog))
    words = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if words[0] == "help":  # "help train" is "train --help"
        words = [*words[1:2], "--help"]
    try:
        name = resolve_name("command", words[0], COMMANDS)
    except ValueError as error:
        message = str(error)
        return guarded(lambda: _show_overview(words, message, prog=prog), prog=prog)
    return run_command(name, words[1:], prog=f"{prog} {name}")


def run_command(name: str, arguments: Sequence[str], *, prog: str) -> int:
    """Parse the arguments of a command, run it, and return its exit code."""

    def work() -> int:
        if any("\0" in word for word in arguments):  # only from Python; no system passes one
            raise UsageError("arguments cannot contain a null character")
        import_modules(arguments)
        args = command_parser(name, prog=prog).parse_args(arguments)
        return COMMANDS[name].run(args)

    return guarded(work, prog=prog)


def command_parser(name: str, *, prog: str) -> Parser:
    """Return the parser of a command."""
    command = COMMANDS[name]
    parser = Parser(prog=prog, description=command.__doc__, examples=command.EXAMPLES)
    _add_arguments(parser, name)
    return parser


def _add_arguments(parser: Parser, name: str) -> None:
    """Add the arguments of a command to its parser."""
    COMMANDS[name].add_arguments(parser)
    if name not in _WITHOUT_NETWORKS:
        add_import_argument(parser)


def _parser_of_all(prog: str) -> Parser:
    """Return a parser of all commands, from which shell completion is derived."""
    parser = Parser(prog=prog)
    commands = parser.add_subparsers()
    for name in COMMANDS:
        _add_arguments(commands.add_parser(name), name)
    return parser


def _show_overview(words: list[str], unknown: str, *, prog: str) -> int:
    """Print the help or the version, or an error if the first word is something else."""
    parser = Parser(prog=prog, description=_list_commands(), examples=_EXAMPLES)
    parser.usage = "%(prog)s [-h] [-V] COMMAND ..."
    parser.add_argument("-V", "--version", action="version", version=f"mnist-accel {__version__}")
    if words[0] in ("-h", "--help", "-V", "--version"):
        parser.parse_args(words[:1])
    if words[0].startswith("-"):
        parser.error(f"the first argument must be a command: {', '.join(COMMANDS)}")
    parser.error(unknown)


def _list_commands() -> str:
    """Return the help text: each command with the first sentence of its docstring."""
    lines = ["The classic from-scratch MNIST networks, on NumPy, Numba and CuPy.", "", "commands:"]
    for name, command in COMMANDS.items():
        summary = (command.__doc__ or "").partition("\n\n")[0]
        lines += textwrap.wrap(
            f"{name:<12}{summary}", HELP_WIDTH, initial_indent="  ", subsequent_indent=" " * 14
        )
    return "\n".join(lines)


def guarded(work: Callable[[], int], *, prog: str) -> int:
    """Return the exit code of `work`, or of the error that it or a standard stream raised.

    Args:
        work: the work of a command.
        prog: the name of the program, for messages.
    """
    try:
        with checked_streams():
            return _explain_errors(work, prog=prog)
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE
    except StreamError as error:
        message = str(error)
        # The failed stream now discards its output, so this ends even if both streams fail.
        return guarded(lambda: _fail(prog, message, EXIT_DATA), prog=prog)


def _explain_errors(work: Callable[[], int], *, prog: str) -> int:
    """Return the exit code of `work`; print an error that the user can fix as one line.

    Raises:
        BrokenPipeError, StreamError: stdout or stderr cannot be written.
    """
    stop: StopRequest | None = None
    try:
        with (
            interrupt_on_signals() as stop,
            flags_in_messages(),
            repeat_lost_ctrl_c(),
            _warnings_in_one_line(),
            _without_announcements(),
        ):
            return work()
    except SystemExit as end:  # argparse has already printed its message
        return int(end.code or 0)
    except (BrokenPipeError, StreamError):
        raise
    except BaseException as error:
        explained = explain_error(error)
        if explained is None:
            raise
        message, code = explained
        if isinstance(error, KeyboardInterrupt):
            # Python ends by SIGINT, without an exit code, if the last `exec` was interrupted.
            exec("")  # noqa: S102
            if stop is not None and stop.signal is not None:
                code = EXIT_SIGNAL + stop.signal
        return _fail(prog, message, code)


def _fail(prog: str, message: str, exit_code: int) -> int:
    """Print a message on stderr and return the exit code."""
    print(f"{prog}: {printable(message)}", file=sys.stderr)
    return exit_code


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Print warnings without the line of code that issued them."""

    def show(message: Warning | str, *details: object, **options: object) -> None:
        print(f"warning: {printable(str(message))}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextmanager
def _without_announcements() -> Iterator[None]:
    """Hide the message that kernels are compiled; the commands show a progress line instead."""

    def hide(record: logging.LogRecord) -> bool:
        return False

    logger = logging.getLogger("mnist_accel")
    logger.addFilter(hide)
    try:
        yield
    finally:
        logger.removeFilter(hide)
