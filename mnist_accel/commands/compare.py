"""Train a recipe on several backends and compare the results of every step.

The first backend is the reference and runs eagerly. All backends start from the same weights and
train on the same batches, which are drawn with the sampling of the recipe. The learning-rate
schedule of the recipe, if any, is scaled to the number of compared steps. If another backend can
compile the training, it runs compiled, in chunks of 1, 2 and 10 steps per call. In this case, the
losses, the numbers of correct images, the weights, and the logits after the last step are compared.
With --eager, or if the backend cannot compile the training, every tensor of every step is compared.
The table lists the relative differences for up to five of the steps. The exit code is 6 if a
difference exceeds the rounding error.

In float32, rounding can change the sign at a ReLU or the maximum of a pooling patch. The difference
then grows from step to step, so compare many steps with --dtype float64.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence

import numpy as np

from backends import Backend, get_backend
from mnist_accel.commands.argument_types import MAX_SIZE, integer, one_of
from mnist_accel.commands.arguments import (
    OF_THE_RECIPE,
    add_data_arguments,
    add_device_arguments,
    add_recipe_arguments,
    dataset_from,
)
from mnist_accel.commands.exit_codes import EXIT_COMPARISON
from mnist_accel.commands.json_output import add_json_argument, print_json
from mnist_accel.diagnostics.compare import BackendComparison, compare_backends
from mnist_accel.errors import UsageError, usage_errors
from mnist_accel.nn.network import DTYPE_ALIASES, DTYPES
from mnist_accel.recipes.models import DEFAULT_MODEL
from mnist_accel.util.text import count

_MAX_COLUMNS = 4  # maximum number of steps in a table, so that its lines fit 80 columns
_DIGITS = 3  # significant digits of relative differences


EXAMPLES: Sequence[str] = (
    "cnn",
    "--backends numpy,cupy --device 0",
    "lenet --iterations 100 --dtype float64 --json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add_recipe_arguments(parser)
    parser.add_argument(
        "--backends",
        default="numpy,numba",
        metavar="A,B",
        help="names of the reference and of the backends to compare with it (default: %(default)s)",
    )
    parser.add_argument(
        "--iterations",
        **integer(1),
        default=10,
        help="number of training steps (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size", **integer(1, MAX_SIZE), help=f"images per step {OF_THE_RECIPE}"
    )
    parser.add_argument(
        "--seed",
        **integer(0),
        default=0,
        help="seed of the weights, the batches and dropout (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype",
        **one_of("dtype", DTYPES, DTYPE_ALIASES),
        default="float32",
        help="dtype of weights and arithmetic (default: %(default)s)",
    )
    parser.add_argument(
        "--eager",
        action="store_true",
        help="run eager steps also on backends that can compile the training",
    )
    add_device_arguments(parser)
    add_data_arguments(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Compare the backends with the reference, and print a table for each of them."""
    from mnist_accel.console.activity import preparation
    from mnist_accel.console.tables import print_table

    model = args.model or DEFAULT_MODEL
    backends = _backends_from(args)
    dataset = dataset_from(args)
    with usage_errors(), preparation(sys.stderr, "comparing backends"):
        results = compare_backends(
            model,
            backends,
            dataset,
            steps=args.iterations,
            batch_size=args.batch_size,
            seed=args.seed,
            dtype=args.dtype,
            compiled=not args.eager,
        )
    reference, *others = results
    exit_code = EXIT_COMPARISON if any(result.first_divergence for result in others) else 0
    if args.json:
        _print_json(results, args, model)
        return exit_code
    for result in others:
        steps = f"eager steps ({result.not_compiled})" if result.not_compiled else "compiled steps"
        print(
            f"{model}, {args.dtype}: {steps} of {result.backend} "
            f"compared with eager steps of {reference.backend}\n"
        )
        _print_differences(result, steps=args.iterations)
    rows = [[r.backend, f"{r.loss:.6f}", f"{r.accuracy:.2%}"] for r in (reference, *others)]
    print(f"on the test set after {count(args.iterations, 'step')}")
    print_table(["backend", "loss", "accuracy"], rows, sys.stdout)
    if exit_code and args.dtype == "float32":
        print("\nto distinguish an error from rounding that grew, repeat with --dtype float64")
    return exit_code


def _print_json(results: Sequence[BackendComparison], args: argparse.Namespace, model: str) -> None:
    reference, *others = results
    comparisons = []
    for result in others:
        step, tensor = result.first_divergence or (None, None)
        comparisons.append(
            {
                "backend": result.backend,
                "passed": step is None,
                "first_difference": {"step": step, "tensor": tensor} if step else None,
                "not_compiled": result.not_compiled or None,
                "errors": {name: _rounded(errors) for name, errors in result.errors.items()},
                "tolerances": _rounded(result.tolerances),
                "loss": result.loss,
                "accuracy": result.accuracy,
            }
        )
    print_json(
        {
            "model": model,
            "dtype": args.dtype,
            "steps": args.iterations,
            "passed": all(comparison["passed"] for comparison in comparisons),
            "reference": {
                "backend": reference.backend,
                "loss": reference.loss,
                "accuracy": reference.accuracy,
            },
            "comparisons": comparisons,
        }
    )


def _rounded(errors: Iterable[float | None]) -> list[float | None]:
    return [None if error is None else float(f"{error:.{_DIGITS}g}") for error in errors]


def _backends_from(args: argparse.Namespace) -> Sequence[Backend]:
    """Return the backends to compare.

    Raises:
        UsageError: fewer than two names are given, a name is unknown, or a device does not exist.
        BackendUnavailableError: a backend cannot run here.
    """
    names = [name.strip() for name in args.backends.split(",")]
    if len(names) < 2:
        raise UsageError(f"--backends needs at least two names, got {args.backends!r}")
    with usage_errors():
        backends = [get_backend(name, threads=args.threads) for name in names]
        if args.device is not None:
            # Backends without devices ignore it. If no backend has devices, the first one
            # raises an error.
            for backend in [b for b in backends if b.devices] or backends:
                backend.take_device(args.device)
    return backends


def _print_differences(result: BackendComparison, *, steps: int) -> None:
    """Print the relative differences of each tensor, and the first that exceeds the tolerance."""
    from mnist_accel.console.tables import print_table

    shown = sorted({int(step) for step in np.linspace(1, steps, _MAX_COLUMNS).round()})
    rows = [
        [name, *(_format_difference(errors[step - 1]) for step in shown)]
        for name, errors in result.errors.items()
    ]
    rows.append(["rounding error", *(f"{result.tolerances[step - 1]:.1e}" for step in shown)])
    print_table(["relative difference", *(f"step {step}" for step in shown)], rows, sys.stdout)
    if result.first_divergence is None:
        print("no tensor differs by more than rounding\n")
    else:
        step, name = result.first_divergence
        print(f"DIFFERS: first at step {step}: {name}\n")


def _format_difference(error: float | None) -> str:
    return "–" if error is None else f"{error:.1e}"
