"""Print a script that makes a shell complete commands, flags and names with the Tab key.

bash and zsh: add the line `eval "$(mnist-accel completion bash)"`, or zsh, to ~/.bashrc or
~/.zshrc. fish: write the output to ~/.config/fish/completions/mnist-accel.fish. PowerShell: add the
output to $PROFILE.
"""

import argparse
import os
from collections.abc import Sequence

from mnist_accel.commands.argument_types import one_of

EXAMPLES: Sequence[str] = ("bash", "fish")
_SHELLS = ("bash", "zsh", "fish", "powershell")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("shell", **one_of("shell", _SHELLS), help="the shell that runs the script")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["mnist-accel"], shell=args.shell))
    return 0


def is_requested() -> bool:
    """Return whether the script of a shell has started this process to complete a line."""
    return "_ARGCOMPLETE" in os.environ


def complete(parser: argparse.ArgumentParser) -> None:
    """Write the completions of the line in the environment, and end the process."""
    import argcomplete

    argcomplete.autocomplete(parser)
