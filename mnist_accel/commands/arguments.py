"""Arguments that several commands share."""

import argparse

from backends import ACTIVATIONS, Backend, get_backend
from mnist_accel.commands.argument_types import integer, one_of, sizes
from mnist_accel.data import DATASETS
from mnist_accel.errors import usage_errors
from mnist_accel.recipes.models import DEFAULT_MODEL, RECIPES

MAX_THREADS = 1024  # a larger number is assumed to be a mistake; each thread needs a workspace
OF_THE_RECIPE = "(default: that of the recipe)"


def add_recipe_argument(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a recipe."""
    parser.add_argument(
        "--model",
        **one_of("model", RECIPES),
        default=DEFAULT_MODEL,
        help="the recipe (default: %(default)s)",
    )


def add_hidden_layer_arguments(parser: argparse._ActionsContainer) -> None:
    """Add the sizes and the activation of the hidden layers."""
    parser.add_argument(
        "--hidden-sizes",
        **sizes(),
        help="units of each hidden layer, such as 128,64 (default: those of the recipe)",
    )
    parser.add_argument(
        "--activation",
        **one_of("activation", ACTIVATIONS),
        help=f"activation of the hidden layers {OF_THE_RECIPE}",
    )


def add_data_arguments(parser: argparse._ActionsContainer, *, dataset: str = "mnist") -> None:
    """Add the choice of a data set; `dataset` is the default in the help text."""
    parser.add_argument(
        "--dataset",
        **one_of("data set", DATASETS),
        help=f"the data set; custom reads the files in --data-dir (default: {dataset})",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder with the four IDX files of the data set, plain or .gz (default: "
        "$MNIST_ACCEL_DATA, then the cache, then a download)",
    )


def add_backend_arguments(
    parser: argparse._ActionsContainer,
    *,
    auto: str = "auto, the first of cupy, numba and numpy that can run here",
    threads: str = "chosen by the backend",
) -> None:
    """Add a backend, its threads and its device; `auto` and `threads` are defaults in the help."""
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help=f"auto, numpy, numba, cupy or an installed plug-in (default: {auto})",
    )
    add_device_arguments(parser, threads=threads)


def add_device_arguments(
    parser: argparse._ActionsContainer, *, threads: str = "chosen by the backend"
) -> None:
    """Add the number of CPU threads, with its default in the help text, and that of the GPU."""
    parser.add_argument(
        "--threads",
        **integer(1, MAX_THREADS),
        help=f"maximum number of CPU threads (default: {threads})",
    )
    parser.add_argument(
        "--device", **integer(0), help="number of the GPU, counted by CUDA from 0 (default: 0)"
    )


def add_model_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a trained network."""
    parser.add_argument(
        "path",
        nargs="?",
        help="run folder, model file, checkpoint or legacy weights (default: the newest finished "
        "run in runs/)",
    )
    parser.add_argument(
        "--model",
        **one_of("model", RECIPES),
        help="recipe of legacy weights (default: derived from the shapes in the file)",
    )
    parser.add_argument(
        "--activation",
        **one_of("activation", ACTIVATIONS),
        help=f"activation of the hidden layers of legacy weights {OF_THE_RECIPE}",
    )


def backend_from(args: argparse.Namespace) -> Backend:
    """Return the backend that the arguments select.

    Raises:
        UsageError: no backend has this name, or it does not accept the threads or the device.
        BackendUnavailableError: the backend cannot run here.
    """
    with usage_errors():
        name = "auto" if args.backend is None else args.backend
        return get_backend(name, threads=args.threads, device=args.device)
