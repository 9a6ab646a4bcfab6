"""Train a recipe and leave a folder with weights, metrics, pictures and a checkpoint.

Each recipe brings the settings of its source; a flag overrides one of them. Results go to stdout,
progress to stderr. Ctrl-C saves, and --resume goes on.
"""

import argparse
import dataclasses
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn, get_args

from mnist_accel.commands import EXIT_INTERRUPTED, Parser
from mnist_accel.commands.arguments import (
    LARGEST_SIZE,
    add_backend_argument,
    add_data_arguments,
    integer,
    number,
    one_of,
    sizes,
)
from mnist_accel.data.batches import Sampling
from mnist_accel.errors import UsageError
from mnist_accel.nn.layers import ACTIVATIONS
from mnist_accel.nn.network import DTYPES
from mnist_accel.nn.optimizers import OPTIMIZERS
from mnist_accel.nn.schedules import SCHEDULES
from mnist_accel.recipes.models import DEFAULT_MODEL, RECIPES
from mnist_accel.recipes.settings import TrainSettings, read_config, resolve

_SETTINGS = {field.name for field in dataclasses.fields(TrainSettings)}

# What may change when a run goes on: how long, on what, and how it is watched. The rest is what
# makes it the same run.
_MAY_CHANGE = {
    "backend",
    "threads",
    "device",
    "no_fallback",
    "data_dir",
    "epochs",
    "iterations",
    "max_seconds",
    "target_accuracy",
    "patience",
    "checkpoint_every",
    "log_every",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command accepts to its parser."""
    parser.usage = "%(prog)s [flags]"  # the list of all of them fills a screen, and is below
    parser.set_defaults(prog=parser.prog)
    _add_settings(parser)
    run = parser.add_argument_group("the run")
    run.add_argument("--config", metavar="FILE", help="settings as TOML, or an earlier config.json")
    run.add_argument(
        "--out", metavar="DIR", help="run folder (default: runs/<time>-<model>-<backend>)"
    )
    run.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="PATH",
        help="go on with a run: its folder, or the newest in runs/",
    )
    run.add_argument("--no-progress", action="store_true", help="only the lines of epochs")
    run.add_argument("--quiet", action="store_true", help="only the result")


def run(args: argparse.Namespace) -> int:
    """Train, and print the result."""
    # Imported here, so that --help does not wait for the drawing of pictures.
    from mnist_accel.runs.folder import RunFolder
    from mnist_accel.runs.run import resume_run, start_run

    given = _settings_in(args)
    display = {"quiet": args.quiet, "progress": not args.no_progress}
    if args.resume is not None:
        _refuse_on_resume(args, given)
        folder = RunFolder.find(args.resume) if args.resume else RunFolder.newest()
        # What "auto", a fallback or a trial came to is part of the run.
        stored = _settings_of(str(folder.config))
        backend, threads, device = folder.backend_used()
        stored |= {"backend": backend, "threads": threads, "device": device}
        if given.get("backend", backend) != backend:
            stored |= {"threads": None, "device": None}  # another one has its own rule
        if given.keys() & {"epochs", "iterations"}:
            stored |= {"epochs": None, "iterations": None}
        result = resume_run(folder, resolve(stored | given), **display)
    else:
        config = {} if args.config is None else _settings_of(args.config)
        if given.keys() & {"epochs", "iterations"}:
            config |= {"epochs": None, "iterations": None}
        result = start_run(resolve(config | given), out=args.out, **display)
    if result.interrupted:
        return EXIT_INTERRUPTED
    if not args.quiet:
        print(f"next: {_next_command(args.prog, result.folder.path)}", file=sys.stderr)
    return 0


def _next_command(prog: str, run: Path) -> str:
    """Return a command that looks at a run, in a form that works where this one did."""
    if prog.startswith("mnist-accel") and shutil.which("mnist-accel"):
        program = ["mnist-accel"]
    else:  # the interpreter as it was called: another name may be another one, or none
        program = [sys.orig_argv[0], "-m", "mnist_accel"]
    return shlex.join([*program, "predict", str(run), "--index", "0"])


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each field of `TrainSettings` that a user sets."""
    positive = integer(1)
    what = parser.add_argument_group("what is trained")
    what.add_argument(
        "--model", **one_of("model", RECIPES), help=f"the recipe (default: {DEFAULT_MODEL})"
    )
    what.add_argument(
        "--hidden-sizes", type=sizes, metavar="N,N", help="units of the hidden layers, like 128,64"
    )
    what.add_argument(
        "--activation", **one_of("activation", ACTIVATIONS), help="of the hidden layers"
    )
    what.add_argument("--dtype", **one_of("dtype", DTYPES), help="of weights and arithmetic")
    what.add_argument("--seed", type=integer(0), metavar="N", help="of weights, order and dropout")
    add_backend_argument(
        what,
        auto="of those that can run here, the one that a trial finds fastest",
        threads="as many as a trial finds fastest",
    )
    what.add_argument(
        "--no-fallback",
        action="store_true",
        default=None,
        help="end with exit code 3 where the GPU cannot be used, instead of using the CPU",
    )
    data = parser.add_argument_group("the data")
    add_data_arguments(data)
    data.add_argument("--limit-train", type=integer(0), metavar="N", help="images; 0 for all")
    data.add_argument("--limit-test", type=integer(0), metavar="N", help="images; 0 for all")
    data.add_argument(
        "--validation-split",
        type=number(at_least=0, below=1),
        metavar="PART",
        help="part of the training images that is held out, watched in place of the test set",
    )
    how = parser.add_argument_group("how it is trained")
    how.add_argument("--epochs", type=positive, metavar="N", help="length in epochs")
    how.add_argument("--iterations", type=positive, metavar="N", help="length in steps")
    how.add_argument(
        "--batch-size",
        type=integer(0, LARGEST_SIZE),
        metavar="N",
        help="images a step; 0 for the whole set",
    )
    how.add_argument(
        "--sampling",
        **one_of("sampling", get_args(Sampling)),
        help="shuffled epochs, batches drawn with replacement, or the whole set at every step",
    )
    how.add_argument("--lr", type=number(above=0), metavar="RATE", help="learning rate")
    how.add_argument(
        "--optimizer", **one_of("optimizer", OPTIMIZERS), help="brings its own learning rate"
    )
    how.add_argument("--momentum", type=number(at_least=0, below=1), metavar="PART", help="of SGD")
    how.add_argument(
        "--weight-decay", type=number(at_least=0), metavar="RATE", help="L2; AdamW's own"
    )
    how.add_argument("--schedule", **one_of("schedule", SCHEDULES), help="of the learning rate")
    stop = parser.add_argument_group("when it stops, and what it writes")
    stop.add_argument(
        "--target-accuracy",
        type=number(above=0, at_most=1),
        metavar="PART",
        help="stop at this accuracy, 0…1, on held-out images if there are any",
    )
    stop.add_argument(
        "--patience",
        type=positive,
        metavar="N",
        help="stop after N evaluations without improvement",
    )
    stop.add_argument(
        "--validation-every", type=positive, metavar="N", help="epochs between two evaluations"
    )
    stop.add_argument(
        "--max-seconds", type=number(above=0), metavar="S", help="stop after S seconds"
    )
    stop.add_argument(
        "--checkpoint-every", type=positive, metavar="N", help="steps (default: ends of epochs)"
    )
    stop.add_argument(
        "--log-every", type=positive, metavar="N", help="steps between lines of the log"
    )


def _refuse_on_resume(args: argparse.Namespace, given: dict[str, Any]) -> None:
    """Refuse flags that would make a resumed run another one."""
    fixed = sorted(given.keys() - _MAY_CHANGE)
    fixed += [name for name in ("config", "out") if getattr(args, name) is not None]
    if fixed:
        flags = ", ".join("--" + name.replace("_", "-") for name in fixed)
        raise UsageError(f"{flags} cannot be given with --resume: the run goes on as it began")


def _settings_of(path: str) -> dict[str, Any]:
    """Read a configuration file, and check and convert its values as if they were flags."""
    parser = _ConfigParser(prog=path)
    _add_settings(parser)
    words: list[str] = []
    for name, value in read_config(path).items():
        # A recipe may have no hidden layers, and a run no wish; its config.json says so.
        if value is None or value in ("", []) or (name == "no_fallback" and value is False):
            continue
        flag = "--" + name.replace("_", "-")
        if value is True:
            words.append(flag)
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            words.append(f"{flag}={text}")  # with a minus, a value of its own looks like a flag
    return _settings_in(parser.parse_args(words))


class _ConfigParser(Parser):
    """A parser for the values of a configuration file."""

    def error(self, message: str) -> NoReturn:
        """Name the file."""
        raise UsageError(f"{self.prog}: {message}")


def _settings_in(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given a value."""
    return {k: v for k, v in vars(args).items() if k in _SETTINGS and v is not None}
