"""Check the gradients of a recipe against central differences, in float64.

Checks random elements of every parameter array, on four images of random noise. The loss is not
differentiable if a pooling patch has two equal maxima; noise has none. The exit code is 6 if a
gradient is wrong.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from mnist_accel.commands.argument_types import integer
from mnist_accel.commands.arguments import (
    add_backend_arguments,
    add_hidden_layer_arguments,
    add_recipe_arguments,
    backend_from,
)
from mnist_accel.commands.exit_codes import EXIT_COMPARISON
from mnist_accel.commands.json_output import add_json_argument, print_json
from mnist_accel.diagnostics.gradient_check import TOLERANCE, check_gradients
from mnist_accel.errors import usage_errors
from mnist_accel.recipes.models import DEFAULT_MODEL, create_model
from mnist_accel.util.text import count

_IMAGES = 4


EXAMPLES: Sequence[str] = ("lenet", "cnn --backend numpy --elements 200")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add_recipe_arguments(parser)
    add_hidden_layer_arguments(parser)
    parser.add_argument(
        "--elements",
        **integer(1),
        default=50,
        help="number of elements to check in each array (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        **integer(0),
        default=0,
        help="seed of the weights, the images and the choice of elements (default: %(default)s)",
    )
    add_backend_arguments(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Check the gradients and print a table."""
    from mnist_accel.console.activity import preparation
    from mnist_accel.console.tables import print_table

    with usage_errors():
        model = create_model(
            args.model or DEFAULT_MODEL,
            backend=backend_from(args),
            seed=args.seed,
            hidden_sizes=args.hidden_sizes,
            activation=args.activation,
            dtype="float64",
        )
    rng = np.random.default_rng(args.seed)
    images = rng.random((_IMAGES, 784))
    labels = rng.integers(model.classes, size=_IMAGES)
    with preparation(sys.stderr, "checking gradients"):
        checks = check_gradients(model, images, labels, elements=args.elements, seed=args.seed)
    wrong = sum(not check.passed for check in checks)
    exit_code = EXIT_COMPARISON if wrong else 0
    if args.json:
        arrays = [asdict(check) | {"passed": check.passed} for check in checks]
        print_json(
            {
                "model": model.name,
                "network": model.describe(),
                "backend": model.backend.name,
                "passed": not wrong,
                "tolerance": TOLERANCE,
                "arrays": arrays,
            }
        )
        return exit_code
    print(f"{model.name}: {model.describe()}, on {model.backend.name}\n")
    rows = [
        [
            check.name,
            "×".join(map(str, check.shape)),
            str(check.checked),
            f"{check.max_error:.1e}",
            "ok" if check.passed else "WRONG",
        ]
        for check in checks
    ]
    print_table(["array", "shape", "checked", "largest relative error", ""], rows, sys.stdout)
    if wrong:
        print(f"\nrelative error above {TOLERANCE:g}: {wrong} of {count(len(checks), 'array')}")
    else:
        print(f"\nall gradients are within {TOLERANCE:g} of the central differences")
    return exit_code
