"""Arguments that several commands share."""

import argparse
from typing import Any

from backends import (
    ACTIVATIONS,
    Backend,
    backend_name,
    backend_names,
    device_name,
    get_backend,
)
from mnist_accel.commands.argument_types import from_text, integer, number, one_of, sizes
from mnist_accel.data import DATASETS, Dataset, load_dataset
from mnist_accel.data.datasets import KIND_NAMES, dataset_name, is_file
from mnist_accel.errors import usage_errors
from mnist_accel.recipes.models import DEFAULT_MODEL, MODEL_ALIASES, RECIPES

MAX_THREADS = 1024  # a larger number is assumed to be a mistake; each thread needs a workspace
EVALUATED_DATA = {
    "dataset": "that of the run, otherwise mnist",
    "test_split": "default: that of the run, and 1 for another file",
}
OF_THE_RECIPE = "(default: that of the recipe)"


# The help lists the names of recipes and data sets elsewhere, so that its lines stay short.
DATASET: dict[str, Any] = {"type": from_text(dataset_name), "metavar": "NAME"}


def recipe_name() -> dict[str, Any]:
    """Return the type of an argument that names a recipe, including recipes that users added."""
    return one_of("model", RECIPES, MODEL_ALIASES) | {"metavar": "MODEL"}


class _StoreOnce(argparse.Action):
    """Stores a value that can be given with or without its flag, but not two different values."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        earlier = getattr(namespace, self.dest, None)
        if values is None:  # argparse calls this for a positional argument that is absent
            values = earlier
        if earlier not in (None, values):
            parser.error(f"{self.dest} is given twice: {earlier} and {values}; remove one of them")
        setattr(namespace, self.dest, values)


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a recipe, with and without its flag, and the list of recipes."""
    add_recipe_position(parser)
    add_recipe_flag(parser)


def add_recipe_position(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a recipe without its flag, and the list of recipes."""
    recipe = recipe_name()

    def find(text: str) -> str:
        is_data = text not in RECIPES and (text in DATASETS or is_file(text))
        if is_data and "--dataset" in parser._option_string_actions:
            raise ValueError(f"{text} is a data set, not a model; give it with --dataset {text}")
        name: str = recipe["type"](text)
        return name

    parser.add_argument(
        "model",
        nargs="?",
        action=_StoreOnce,
        **recipe | {"type": from_text(find)},
        help="short for --model",
    )
    add_list_of_recipes(parser)


def add_list_of_recipes(parser: argparse.ArgumentParser) -> None:
    """Add one line for each recipe to the help."""
    recipes = "\n".join(f"  {name:<11}  {recipe.summary}" for name, recipe in RECIPES.items())
    parser.epilog = f"recipes (MODEL):\n{recipes}\n\n{parser.epilog}"


def add_recipe_flag(flags: argparse._ActionsContainer) -> None:
    """Add the flag that selects a recipe; its value is None if it is absent."""
    flags.add_argument(
        "--model",
        action=_StoreOnce,
        **recipe_name(),
        help=f"the recipe, listed below (default: {DEFAULT_MODEL})",
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


def add_data_arguments(
    parser: argparse._ActionsContainer,
    *,
    dataset: str = "mnist",
    test_split: str = "no default",
) -> None:
    """Add the choice of a data set; `dataset` and `test_split` are defaults in the help text."""
    name = parser.add_argument(
        "--dataset",
        action=_StoreOnce,
        **DATASET,
        help="mnist, fashion-mnist, digits, npz:FILE, csv:FILE, or custom, which reads the files "
        f"in --data-dir (default: {dataset})",
    )
    name.completer = lambda **context: DATASETS  # type: ignore[attr-defined]
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder with the four IDX files of the data set, plain or .gz (default: "
        "$MNIST_ACCEL_DATA, then the cache, then a download)",
    )
    parser.add_argument(
        "--label-column",
        metavar="COLUMN",
        help="column of csv:FILE with the labels (default: label)",
    )
    parser.add_argument(
        "--test-split",
        **number("FRACTION", above=0, at_most=1),
        help="fraction of the examples of a file without a test set that become the test set "
        f"({test_split})",
    )
    parser.add_argument(
        "--kind",
        **one_of("kind", KIND_NAMES),
        help="whether a file contains pixels, which are scaled to 0…1, or features (default: auto, "
        "decided by dtype, shape and values)",
    )


def dataset_from(args: argparse.Namespace) -> Dataset:
    """Return the data set that the arguments select, MNIST if none is given.

    Raises:
        UsageError: the data set does not accept an argument.
        DataError: the data set cannot be obtained.
    """
    given = {k: v for k, v in data_arguments(args).items() if v is not None}
    with usage_errors():
        return load_dataset(**given)


def data_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `load_dataset`, with None for those that are not given."""
    return {
        "name": args.dataset,
        "data_dir": args.data_dir,
        "label_column": args.label_column,
        "test_split": args.test_split,
        "kind": args.kind,
    }


def add_dataset_position(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a data set without its flag."""
    parser.add_argument(
        "dataset", nargs="?", action=_StoreOnce, **DATASET, help="short for --dataset"
    )


def add_backend_arguments(
    parser: argparse._ActionsContainer,
    *,
    auto: str = "auto, the first of cupy, numba and numpy that can run here",
    threads: str = "chosen by the backend",
) -> None:
    """Add a backend, its threads and its device; `auto` and `threads` are defaults in the help."""
    backend = parser.add_argument(
        "--backend",
        type=from_text(backend_name),
        metavar="NAME",
        help=f"auto, numpy, numba, cupy, torch or an installed plug-in (default: {auto})",
    )
    # For shell completion. `choices` would read the list of plug-ins at every start.
    backend.completer = lambda **context: backend_names()  # type: ignore[attr-defined]
    add_device_arguments(parser, threads=threads)


def add_device_arguments(
    parser: argparse._ActionsContainer, *, threads: str = "chosen by the backend"
) -> None:
    """Add the numbers of CPU threads and of the GPU; `threads` is a default in the help."""
    parser.add_argument(
        "--threads",
        **integer(1, MAX_THREADS),
        help=f"maximum number of CPU threads (default: {threads})",
    )
    parser.add_argument(
        "--device",
        type=from_text(device_name),
        metavar="DEVICE",
        help="cuda:N, also written as N, for cupy; cpu, cuda:N, mps or xpu:N for torch (default: "
        "cuda:0 for cupy, cpu for torch)",
    )


def add_model_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a trained network."""
    parser.add_argument(
        "path",
        nargs="?",
        metavar="RUN",
        help="run folder, model file, checkpoint or legacy weights (default: the newest finished "
        "run in runs/)",
    )
    parser.add_argument(
        "--member",
        **integer(0),
        help="number of the network in the folder of a population (no default)",
    )
    parser.add_argument(
        "--model",
        **recipe_name(),
        help="recipe of legacy weights (.pkl, .npy or .npz), such as lenet (default: derived from "
        "the shapes in the file)",
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
