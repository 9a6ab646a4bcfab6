"""Train a recipe on several backends, and compare them tensor by tensor.

The first backend is the reference. All start from the same weights and see the same batches, drawn
from the recipe's images as its training draws them; a learning-rate schedule spans the steps that
are done here. The table shows the relative difference of each tensor, step by step. Exit code 6 if
a difference is larger than rounding explains.
"""

import argparse
import sys

import numpy as np

from mnist_accel.commands import EXIT_COMPARISON
from mnist_accel.commands.arguments import (
    LARGEST_SIZE,
    add_data_arguments,
    add_device_argument,
    add_threads_argument,
    integer,
    one_of,
)
from mnist_accel.nn.network import DTYPES
from mnist_accel.recipes.models import DEFAULT_MODEL, RECIPES

_COLUMNS = 5  # steps that fit a line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command accepts to its parser."""
    parser.add_argument(
        "--model", **one_of("model", RECIPES), default=DEFAULT_MODEL, help="the recipe"
    )
    parser.add_argument(
        "--backends",
        default="numpy,numba",
        metavar="A,B",
        help="the reference, and what is compared with it (default: %(default)s)",
    )
    parser.add_argument(
        "--iterations",
        type=integer(1),
        default=10,
        metavar="N",
        help="steps (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size", type=integer(1, LARGEST_SIZE), metavar="N", help="images a step"
    )
    parser.add_argument("--seed", type=integer(0), default=0, metavar="N", help="of all draws")
    parser.add_argument(
        "--dtype", **one_of("dtype", DTYPES), default="float32", help="of the arithmetic"
    )
    add_threads_argument(parser)
    add_device_argument(parser)
    add_data_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Compare, and print the tables."""
    from backends import get_backend
    from mnist_accel.console.display import print_table
    from mnist_accel.data import load_dataset
    from mnist_accel.diagnostics.compare import compare_backends
    from mnist_accel.errors import UsageError, usage_errors

    names = [name.strip() for name in args.backends.split(",")]
    if len(names) < 2:
        raise UsageError(f"--backends needs at least two names, got {args.backends!r}")
    with usage_errors():
        backends = [get_backend(name, threads=args.threads) for name in names]
        if args.device is not None:
            # The reference usually computes on the CPU; with no GPU at all, it is what refuses.
            for backend in [b for b in backends if b.device_count is not None] or backends:
                backend.take_device(args.device)
        dataset = load_dataset(args.dataset or "mnist", data_dir=args.data_dir)
    results = compare_backends(
        args.model,
        backends,
        dataset,
        steps=args.iterations,
        batch_size=args.batch_size,
        seed=args.seed,
        dtype=args.dtype,
    )
    shown = sorted({int(s) for s in np.linspace(1, args.iterations, _COLUMNS).round()})
    for result in results[1:]:
        print(f"{args.model}, {args.dtype}: {result.backend} against {results[0].backend}\n")
        rows = [
            [name, *(f"{errors[step - 1]:.1e}" for step in shown)]
            for name, errors in result.errors.items()
        ]
        rows.append(["explained by rounding", *(f"{result.tolerances[s - 1]:.1e}" for s in shown)])
        print_table(["relative difference", *(f"step {s}" for s in shown)], rows, sys.stdout)
        if result.first_divergence is None:
            print("no tensor differs by more than rounding\n")
        else:
            step, name = result.first_divergence
            print(f"DIFFERS: first at step {step}, in the {name}\n")
    rows = [[r.backend, f"{r.loss:.6f}", f"{r.accuracy:.2%}"] for r in results]
    print(f"on the test set after {args.iterations} steps")
    print_table(["backend", "loss", "accuracy"], rows, sys.stdout)
    differs = any(result.first_divergence for result in results[1:])
    return EXIT_COMPARISON if differs else 0
