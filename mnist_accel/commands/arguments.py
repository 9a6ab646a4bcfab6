"""Arguments that several commands share, and the types of their values."""

import argparse
import math
from collections.abc import Callable

from mnist_accel.array_layer import Backend, get_backend
from mnist_accel.data import DATASETS
from mnist_accel.errors import usage_errors
from mnist_accel.models import RECIPES


def add_data_arguments(parser: argparse._ActionsContainer) -> None:
    """Add the choice of a data set."""
    parser.add_argument("--dataset", choices=DATASETS, help="which data set (default: mnist)")
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder with the four IDX files (default: $MNIST_ACCEL_DATA, the cache, or fetched)",
    )


def add_backend_argument(parser: argparse._ActionsContainer) -> None:
    """Add the choice of a backend."""
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help="auto, numpy, numba, cupy or an installed plug-in (default: auto)",
    )


def add_model_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a trained network."""
    parser.add_argument(
        "path",
        nargs="?",
        help="run folder, model file, checkpoint or legacy weights (default: the newest run)",
    )
    parser.add_argument("--model", choices=RECIPES, help="the recipe that legacy weights belong to")


def backend_from(args: argparse.Namespace) -> Backend:
    """Return the backend that the arguments ask for.

    Raises:
        UsageError: no backend has this name.
        BackendUnavailableError: it cannot run here.
    """
    with usage_errors():
        return get_backend(args.backend or "auto")


def integer(minimum: int) -> Callable[[str], int]:
    """Return a type of argument: an integer of at least `minimum`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(
                f"expected an integer of at least {minimum}, got {text}"
            )
        return value

    return parse


def number(
    *, above: float = -math.inf, at_least: float = -math.inf, below: float = math.inf
) -> Callable[[str], float]:
    """Return a type of argument: a finite number in a range."""
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("above", above), ("of at least", at_least), ("below", below))
        if math.isfinite(bound)
    ]

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and above < value < below and value >= at_least):
            wanted = " and ".join(bounds) or "that is finite"
            raise argparse.ArgumentTypeError(f"expected a number {wanted}, got {text}")
        return value

    return parse


def sizes(text: str) -> tuple[int, ...]:
    """Parse "128,64" into (128, 64)."""
    one_size = integer(1)
    return tuple(one_size(part.strip()) for part in text.split(","))
