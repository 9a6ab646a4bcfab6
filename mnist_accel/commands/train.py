"""Train a recipe and write a run folder: weights, metrics, pictures and a checkpoint.

Each recipe has its own default settings, and each flag overrides one of them. Results are printed
on stdout, progress on stderr. Ctrl-C, SIGTERM and SIGHUP save a checkpoint, from which --resume
continues.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from mnist_accel.commands.arguments import add_recipe_position
from mnist_accel.commands.exit_codes import EXIT_SIGNAL
from mnist_accel.commands.next_command import next_command
from mnist_accel.commands.train_settings import (
    add_settings_arguments,
    settings_in,
    settings_in_file,
)
from mnist_accel.data.datasets import is_file
from mnist_accel.errors import UsageError
from mnist_accel.recipes.settings import resolve

# The settings that may change when a run is resumed. All others define the run.
_MAY_CHANGE = {
    "backend", "threads", "device", "no_fallback", "data_dir", "epochs", "iterations",
    "max_seconds", "target_accuracy", "patience", "checkpoint_every", "log_every",
    "log",
}  # fmt: skip


EXAMPLES: Sequence[str] = (
    "lenet",
    "--epochs 5 --lr 0.1",
    "fast99 --backend numba --threads 2",
    "--dataset fashion-mnist --out runs/fashion",
    "--resume",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.usage = "%(prog)s [MODEL] [options]"  # the complete list would fill a screen
    parser.set_defaults(prog=parser.prog)
    add_recipe_position(parser)
    add_settings_arguments(parser)
    group = parser.add_argument_group("run")
    group.add_argument(
        "--config",
        metavar="FILE",
        help="read settings from a TOML file or the config.json of a run; flags override them",
    )
    group.add_argument(
        "--out", metavar="DIR", help="run folder (default: runs/<time>-<model>-<backend>)"
    )
    group.add_argument(
        "--resume",
        nargs="?",
        const=True,
        metavar="PATH",
        help="continue the run in this folder (default: the newest in runs/)",
    )
    group.add_argument(
        "--no-progress",
        action="store_true",
        help="print neither a progress bar nor log lines, only notes and one line per epoch",
    )
    group.add_argument(
        "--quiet", action="store_true", help="print only the final result and warnings"
    )


def run(args: argparse.Namespace) -> int:
    """Train, and print the result."""
    # These modules import rich, which --help does not need.
    from mnist_accel.runs.config import backend_used
    from mnist_accel.runs.folder import RunFolder
    from mnist_accel.runs.run import resume_run, start_run

    given = settings_in(args)
    output = {"quiet": args.quiet, "progress": not args.no_progress}
    if args.resume is not None:
        _check_resumable(args, given)
        folder = RunFolder.newest() if args.resume is True else RunFolder.find(args.resume)
        stored = settings_in_file(str(folder.config)) | backend_used(folder)
        if given.get("backend", stored["backend"]) != stored["backend"]:
            stored |= {"threads": None, "device": None}  # these belong to the stored backend
        result = resume_run(folder, resolve(_override(stored, given)), **output)
    else:
        config = {} if args.config is None else settings_in_file(args.config)
        result = start_run(resolve(_override(config, given)), out=args.out, **output)
    path = str(result.folder.path)
    if result.signal is not None:
        print(f"continue with: {next_command(args, 'train', '--resume', path)}", file=sys.stderr)
        return EXIT_SIGNAL + result.signal
    if not args.quiet:
        print(f"next: {next_command(args, 'predict', path, '--index', '0')}", file=sys.stderr)
    return 0


def _override(stored: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the stored settings, replaced by the given ones."""
    if given.keys() & {"epochs", "iterations"}:  # either of them replaces both
        stored = stored | {"epochs": None, "iterations": None}
    return stored | given


def _check_resumable(args: argparse.Namespace, given: dict[str, Any]) -> None:
    """Raise a `UsageError` if a given flag cannot change when a run is resumed."""
    fixed = sorted(given.keys() - _MAY_CHANGE)
    fixed += [name for name in ("config", "out") if getattr(args, name) is not None]
    if is_file(given.get("dataset", "")):  # the new place of a file that has moved
        fixed.remove("dataset")
    if fixed:
        flags = ", ".join("--" + name.replace("_", "-") for name in fixed)
        raise UsageError(
            f"{flags} cannot be given with --resume; the run continues with its stored settings"
        )
