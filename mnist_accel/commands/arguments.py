"""Arguments that several commands share, and the types of their values."""

import argparse
import math
from collections.abc import Callable, Iterable
from typing import Any

from backends import Backend, get_backend, unknown_name
from mnist_accel.data import DATASETS
from mnist_accel.errors import usage_errors
from mnist_accel.recipes.models import RECIPES

# Of a batch or a layer: so many images of 784 float64 are as many bytes as NumPy can count. What
# is smaller may still be more than there is memory for, which is found out by trying.
LARGEST_SIZE = 10**15
MOST_THREADS = 1024  # more are a typing error; each takes room for what it works on


def add_data_arguments(parser: argparse._ActionsContainer) -> None:
    """Add the choice of a data set."""
    parser.add_argument(
        "--dataset", **one_of("data set", DATASETS), help="which data set (default: mnist)"
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder with the four IDX files, plain or .gz (default: $MNIST_ACCEL_DATA, the cache, "
        "or fetched)",
    )


def add_backend_argument(
    parser: argparse._ActionsContainer,
    *,
    auto: str = "the first of cupy, numba and numpy that can run here",
    threads: str = "as many as suit the batch",
) -> None:
    """Add the choice of a backend, of its threads and of its device.

    Args:
        parser: of the command.
        auto: what the command makes of "auto".
        threads: what it makes of no number of threads.
    """
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help=f"auto, numpy, numba, cupy or an installed plug-in (default: auto: {auto})",
    )
    add_threads_argument(parser, default=threads)
    add_device_argument(parser)


def add_threads_argument(
    parser: argparse._ActionsContainer, *, default: str = "as many as suit the batch"
) -> None:
    """Add the number of threads."""
    parser.add_argument(
        "--threads",
        type=integer(1, MOST_THREADS),
        metavar="N",
        help=f"of the CPU, at most (default: {default})",
    )


def add_device_argument(parser: argparse._ActionsContainer) -> None:
    """Add the number of the GPU."""
    parser.add_argument(
        "--device",
        type=integer(0),
        metavar="N",
        help="which GPU, as CUDA counts those it sees, from 0 (default: the first)",
    )


def add_model_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a trained network."""
    parser.add_argument(
        "path",
        nargs="?",
        help="run folder, model file, checkpoint or legacy weights (default: the newest run in "
        "runs/ that is finished)",
    )
    parser.add_argument(
        "--model", **one_of("model", RECIPES), help="the recipe that legacy weights belong to"
    )


def backend_from(args: argparse.Namespace) -> Backend:
    """Return the backend that the arguments ask for.

    Raises:
        UsageError: no backend has this name, or it does not take the threads or the device.
        BackendUnavailableError: it cannot run here.
    """
    with usage_errors():
        return get_backend(
            "auto" if args.backend is None else args.backend,
            threads=args.threads,
            device=args.device,
        )


def one_of(kind: str, names: Iterable[str]) -> dict[str, Any]:
    """Return the type and the metavar of an argument that is one of some names.

    In place of argparse's `choices`, which suggest nothing to who made a typing error.
    """
    known = tuple(names)

    def parse(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(unknown_name(kind, text, known))
        return text

    return {"type": parse, "metavar": "{" + ",".join(known) + "}"}


def integer(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Return a type of argument: an integer in a range."""
    wanted = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum or (maximum is not None and value > maximum):
            raise argparse.ArgumentTypeError(
                f"expected an integer {wanted}, got {text or 'nothing'}"
            )
        return value

    return parse


def number(
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
    at_most: float = math.inf,
) -> Callable[[str], float]:
    """Return a type of argument: a finite number in a range."""
    named = {"above": above, "of at least": at_least, "below": below, "at most": at_most}
    bounds = [f"{word} {bound:g}" for word, bound in named.items() if math.isfinite(bound)]

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and above < value < below and at_least <= value <= at_most):
            wanted = " and ".join(bounds) or "that is finite"
            raise argparse.ArgumentTypeError(f"expected a number {wanted}, got {text or 'nothing'}")
        return value

    return parse


def sizes(text: str) -> tuple[int, ...]:
    """Parse "128,64" into (128, 64)."""
    one_size = integer(1, LARGEST_SIZE)
    return tuple(one_size(part.strip()) for part in text.split(","))
