"""Check the gradients of a recipe against central differences, in float64.

Every parameter array is checked at some elements drawn at random, on a few images of noise: noise
has no equal maxima in a pooling window, where the loss has no gradient. Exit code 6 if one differs.
"""

import argparse
import sys

import numpy as np

from mnist_accel.commands import EXIT_COMPARISON
from mnist_accel.commands.arguments import (
    add_backend_argument,
    backend_from,
    integer,
    one_of,
    sizes,
)
from mnist_accel.nn.layers import ACTIVATIONS
from mnist_accel.recipes.models import DEFAULT_MODEL, RECIPES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command accepts to its parser."""
    parser.add_argument(
        "--model", **one_of("model", RECIPES), default=DEFAULT_MODEL, help="the recipe"
    )
    parser.add_argument("--hidden-sizes", type=sizes, metavar="N,N", help="units of hidden layers")
    parser.add_argument(
        "--activation", **one_of("activation", ACTIVATIONS), help="of the hidden layers"
    )
    parser.add_argument(
        "--elements",
        type=integer(1),
        default=50,
        metavar="N",
        help="elements that are checked of each array (default: %(default)s)",
    )
    parser.add_argument("--seed", type=integer(0), default=0, metavar="N", help="of all draws")
    add_backend_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Check, and print a table."""
    from mnist_accel.console.display import print_table
    from mnist_accel.diagnostics.gradient_check import TOLERANCE, check_gradients
    from mnist_accel.errors import usage_errors
    from mnist_accel.recipes.models import create_model

    with usage_errors():
        model = create_model(
            args.model,
            backend=backend_from(args),
            seed=args.seed,
            hidden_sizes=args.hidden_sizes,
            activation=args.activation,
            dtype="float64",
        )
    rng = np.random.default_rng(args.seed)
    images = rng.random((4, 784))
    labels = rng.integers(model.classes, size=4)
    results = check_gradients(model, images, labels, elements=args.elements, seed=args.seed)
    print(f"{model.name}: {model.describe()}, on {model.backend.name}\n")
    rows = [
        [
            result.name,
            "×".join(map(str, result.shape)),
            str(result.checked),
            f"{result.max_error:.1e}",
            "ok" if result.passed else "WRONG",
        ]
        for result in results
    ]
    print_table(["array", "shape", "checked", "largest relative error", ""], rows, sys.stdout)
    passed = all(result.passed for result in results)
    print(
        f"\n{'all' if passed else 'not all'} gradients are within {TOLERANCE:g} of the differences"
    )
    return 0 if passed else EXIT_COMPARISON
