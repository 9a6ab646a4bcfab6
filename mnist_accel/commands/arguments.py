"""Arguments that several commands share."""

import argparse

from backends import Backend, get_backend
from mnist_accel.commands.argument_types import integer, one_of
from mnist_accel.data import DATASETS
from mnist_accel.errors import usage_errors
from mnist_accel.recipes.models import RECIPES

MAX_THREADS = 1024  # a larger number is a typing error, and each thread needs its own workspace


def add_data_arguments(parser: argparse._ActionsContainer, *, dataset: str = "mnist") -> None:
    """Add the choice of a data set.

    Args:
        parser: the parser of the command.
        dataset: the data set that the command uses by default, for the help text.
    """
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
    """Add the choice of a backend, of its number of threads and of its device.

    Args:
        parser: the parser of the command.
        auto: the default backend, for the help text.
        threads: the default number of threads, for the help text.
    """
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help=f"auto, numpy, numba, cupy or an installed plug-in (default: {auto})",
    )
    add_threads_argument(parser, default=threads)
    add_device_argument(parser)


def add_threads_argument(
    parser: argparse._ActionsContainer, *, default: str = "chosen by the backend"
) -> None:
    """Add the number of CPU threads."""
    parser.add_argument(
        "--threads",
        type=integer(1, MAX_THREADS),
        metavar="N",
        help=f"maximum number of CPU threads (default: {default})",
    )


def add_device_argument(parser: argparse._ActionsContainer) -> None:
    """Add the number of the GPU."""
    parser.add_argument(
        "--device",
        type=integer(0),
        metavar="N",
        help="number of the GPU, counted by CUDA from 0 (default: 0)",
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
        help="recipe of legacy weights (default: derived from the file type and layer count)",
    )


def backend_from(args: argparse.Namespace) -> Backend:
    """Return the backend that the arguments select.

    Raises:
        UsageError: no backend has this name, or it does not accept the threads or the device.
        BackendUnavailableError: the backend cannot run here.
    """
    with usage_errors():
        return get_backend(
            "auto" if args.backend is None else args.backend,
            threads=args.threads,
            device=args.device,
        )
