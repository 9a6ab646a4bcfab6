"""The command that a user can run next, as printed in notes."""

import argparse
import shutil
import sys

from mnist_accel.util.text import shell_command


def next_command(args: argparse.Namespace, *words: str) -> str:
    """Return a command for the user's shell that starts the program as this call did.

    Args:
        args: parsed arguments, with the name of the program, `prog`, and the modules to import.
        words: the name of the command, and its arguments.
    """
    if args.prog.startswith("mnist-accel") and shutil.which("mnist-accel"):
        program = ["mnist-accel"]
    else:  # the name "python" may be another version or not exist
        program = [sys.orig_argv[0], "-m", "mnist_accel"]
    imports = [word for module in args.imports for word in ("--import", module)]
    return shell_command([*program, *words, *imports])
