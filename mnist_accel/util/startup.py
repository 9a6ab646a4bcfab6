"""The start and the end of a process that runs a command."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from mnist_accel.util.launch import PROGRAMS, is_benchmark, program
from mnist_accel.util.text import shell_command

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

EXIT_NOT_INSTALLED = 3
_REPEAT_SECONDS = 0.1
_OUR_PACKAGES = (*PROGRAMS, "backends", "reference", "tests")


def import_from(folder: Path, package: str) -> None:
    """Import a package from a folder, whatever the search path contains."""
    spec = PathFinder.find_spec(package, [str(folder)])
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[package] = module_from_spec(spec)
    spec.loader.exec_module(module)


def explain_missing_packages() -> None:
    """Let an import of a package that is not installed end this process with one line."""
    sys.excepthook = _explain_missing_package


def missing_package(error: ModuleNotFoundError) -> str | None:
    """Return which package is missing and how to install it; None for a part of the project."""
    package = (error.name or "").partition(".")[0]
    if package in ("", *_OUR_PACKAGES):
        return None
    make, name = ("make bench", ".[dev]") if is_benchmark() else ("make train", ".")
    pip = [sys.executable, "-m", "pip", "install", "-c", "constraints.txt", "-e", name]
    return (
        f"the package {package} is not installed for {sys.executable}; in the folder of the "
        f"project, `{make}` installs it for .venv/bin/python, `{shell_command(pip)}` for this one"
    )


def end_quickly() -> None:
    """Let Python end without a search for reference cycles, which takes 0.5 s with Numba loaded."""
    atexit.register(gc.freeze)


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


def _explain_missing_package(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    message = missing_package(error) if isinstance(error, ModuleNotFoundError) else None
    if message is None:
        sys.__excepthook__(kind, error, trace)
        return
    print(f"{program()}: {message}", file=sys.stderr)
    sys.exit(EXIT_NOT_INSTALLED)
