"""The argument `--import`: modules that register classes or recipes of the user."""

import argparse
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from backends import spelling
from mnist_accel.errors import UsageError
from mnist_accel.util.text import one_line


def add_import_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument to the parser of a command."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module or a .py file, which registers your own layers, optimizers, "
        "schedules, backends or recipes; may be repeated (default: none)",
    )


def import_modules(arguments: Sequence[str]) -> None:
    """Import the modules that the arguments of a command name.

    It must run before the other arguments are parsed, because they accept names that it adds.

    Raises:
        UsageError: a module cannot be imported.
    """
    for argument, following in pairwise([*arguments, ""]):
        flag, equals, value = argument.partition("=")
        name = value if equals else following
        # The parser of the command reports a missing value.
        if flag.startswith("--") and spelling(flag) == "import" and name and name[0] != "-":
            _import(name)


def _import(name: str) -> None:
    try:
        if name.endswith(".py"):
            _import_file(Path(name))
            return
        if "" not in sys.path:
            sys.path.append("")  # the current folder, after the installed packages
        importlib.import_module(name)
    except (Exception, SystemExit) as error:  # the module may raise anything
        raise UsageError(f"cannot import {name}: {_describe(error)}") from error


def _import_file(file: Path) -> None:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None  # both exist for every name that ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # dataclasses look up the module of a class
    spec.loader.exec_module(module)


def _describe(error: BaseException) -> str:
    """Return the kind of an error, its message, and the line of the module that raised it."""
    text = f"{type(error).__name__}: {one_line(error)}"
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename not in (__file__, importlib.__file__) and "<frozen" not in frame.filename:
            return f"{text} ({frame.filename}, line {frame.lineno})"
    return text
