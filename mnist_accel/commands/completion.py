"""Print a script that makes a shell complete commands, flags and names with the Tab key.

Add the line for your shell to its start-up file; in zsh, after compinit:

  bash        ~/.bashrc     eval "$(mnist-accel completion bash)"
  zsh         ~/.zshrc      eval "$(mnist-accel completion zsh)"
  fish        config.fish   mnist-accel completion fish | source
  PowerShell  $PROFILE      mnist-accel completion powershell | Out-String | iex
"""

import argparse
import os
from collections.abc import Sequence

from mnist_accel.commands.argument_types import one_of

EXAMPLES: Sequence[str] = ("bash", "fish")
_SHELLS = ("bash", "zsh", "fish", "powershell")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    shell = one_of("shell", _SHELLS) | {"metavar": "SHELL"}
    parser.add_argument("shell", **shell, help=f"one of {', '.join(_SHELLS)}")


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
