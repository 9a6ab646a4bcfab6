"""Trains each recipe for a second: the first results on a new machine.

    python -m benchmarks.gpu.smoke --out smoke.json
    python -m benchmarks.gpu.smoke --out smoke.json --backend numba --seconds 0.2

Each recipe has a process of its own, so one that breaks or hangs the GPU does not stop the others.
Prints a row as soon as a recipe is done. The time of the first call includes the compilation of
the kernels, the copy of the data set and the capture of graphs. Exit code: 1 if a recipe fails or
its last losses are not below its first one.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from backends import Backend, create_optimizer, get_backend
from benchmarks.gpu.own_process import rows_of
from mnist_accel.commands.argument_types import number
from mnist_accel.commands.dispatcher import guarded
from mnist_accel.commands.parser import Parser
from mnist_accel.data import load_dataset
from mnist_accel.recipes.models import RECIPES, create_model
from mnist_accel.training.callback import Callback
from mnist_accel.training.progress import StepsReport
from mnist_accel.training.trainer import Trainer
from mnist_accel.util.files import write_atomically

HEADER = """| recipe | batch | first call | steps | per step | first loss | last loss |
|---|---:|---:|---:|---:|---:|---:|"""
LIMIT_S = 30  # of a recipe, without its training time
LAST = 50  # the last loss is the mean of this many steps, because batches differ


@dataclass(frozen=True)
class Row:
    """A short training.

    Attributes:
        recipe: name of the recipe.
        batch_size: images per step.
        first_call_s: seconds from the start to the end of the first step.
        steps: number of steps after the first.
        step_us: microseconds per step, without the first.
        first_loss: loss of the first step.
        last_loss: mean loss of the last steps.
        error: why the training failed; empty if it did not.
    """

    recipe: str
    batch_size: int = 0
    first_call_s: float = 0.0
    steps: int = 0
    step_us: float = 0.0
    first_loss: float = 0.0
    last_loss: float = 0.0
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether the network learned."""
        return not self.error and self.last_loss < self.first_loss

    def __str__(self) -> str:
        if self.error:
            return f"| {self.recipe} | | | | | | **failed**: {self.error} |"
        mark = "" if self.passed else " **not lower**"
        return (
            f"| {self.recipe} | {self.batch_size} | {self.first_call_s:.2f} s | {self.steps} "
            f"| {self.step_us:.1f} µs | {self.first_loss:.4f} | {self.last_loss:.4f}{mark} |"
        )


class _Until(Callback):
    """Requests a stop after some seconds of training.

    Args:
        seconds: the time limit.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.perf_counter() + seconds
        self.seconds = 0.0

    def on_steps(self, trainer: Trainer, report: StepsReport) -> None:
        """Add the time of the steps."""
        self.seconds += report.seconds
        if time.perf_counter() >= self._end:
            trainer.request_stop("the time is up")


def train(name: str, backend: Backend, images: Any, labels: Any, *, seconds: float) -> Row:
    """Train a recipe for some seconds, and return the results."""
    recipe = RECIPES[name]
    begin = time.perf_counter()
    trainer = Trainer(
        create_model(name, backend=backend),
        create_optimizer(recipe.optimizer, lr=recipe.lr),
        batch_size=recipe.batch_size or len(images),
        sampling=recipe.sampling,
    )
    data = trainer.prepare(images, labels)
    (first_loss,) = trainer.fit(data, iterations=1).losses
    first_call_s = time.perf_counter() - begin
    until = _Until(seconds)
    losses = trainer.fit(data, iterations=1_000_000, callbacks=[until]).losses
    return Row(
        recipe=name,
        batch_size=trainer.batch_size,
        first_call_s=first_call_s,
        steps=len(losses),
        step_us=until.seconds / len(losses) * 1e6,
        first_loss=first_loss,
        last_loss=mean(losses[-LAST:]),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Train every recipe, print a table, write a JSON file, and return the exit code."""
    parser = Parser(prog="python -m benchmarks.gpu.smoke", description=__doc__, epilog="")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file")
    parser.add_argument("--backend", default="cupy", help="default: %(default)s")
    parser.add_argument(
        "--seconds",
        **number("S", above=0),
        default=1.0,
        help="training time per recipe, in seconds (default: %(default)g)",
    )
    parser.add_argument("--recipe", choices=list(RECIPES), help="train only this one")
    return guarded(lambda: _run(parser.parse_args(argv)), prog=parser.prog)


def _run(args: argparse.Namespace) -> int:
    rows: list[Row] = []
    print(HEADER, flush=True)
    for name in [args.recipe] if args.recipe else RECIPES:
        row = _train_here(args) if args.recipe else _train_apart(name, args)
        rows.append(row)
        print(row, flush=True)
        text = json.dumps([asdict(row) for row in rows], indent=2)
        write_atomically(args.out, f"{text}\n".encode())
    return 0 if all(row.passed for row in rows) else 1


def _train_here(args: argparse.Namespace) -> Row:
    """Train the recipe of the command line."""
    backend, mnist = get_backend(args.backend), load_dataset("mnist")
    try:
        return train(args.recipe, backend, mnist.x_train, mnist.t_train, seconds=args.seconds)
    except Exception as error:  # the report names the problem, whatever it is
        return Row(args.recipe, error=f"{type(error).__name__}: {' '.join(str(error).split())}")


def _train_apart(name: str, args: argparse.Namespace) -> Row:
    """Train a recipe in a process of its own."""
    arguments = ["--recipe", name, "--backend", args.backend, "--seconds", str(args.seconds)]
    rows, problem = rows_of(
        "benchmarks.gpu.smoke", *arguments, option="--out", limit_s=LIMIT_S + args.seconds
    )
    return Row(**rows[0]) if rows else Row(name, error=problem)


if __name__ == "__main__":
    sys.exit(main())
