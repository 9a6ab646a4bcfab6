"""Train a recipe with many seeds and settings, and print mean and deviation instead of one result.

Settings take several values, separated by commas: every combination is trained with every seed.
Ctrl-C keeps the members that have ended; --resume trains the others.

"population compare RUN_A RUN_B" tells whether the second population is better, seed by seed.
"""

import argparse
import math
import signal
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backends import get_backend, resolve_name
from mnist_accel.commands.argument_types import one_of, seeds
from mnist_accel.commands.arguments import (
    add_backend_arguments,
    add_list_of_recipes,
    data_arguments,
    dataset_from,
)
from mnist_accel.commands.exit_codes import EXIT_DIVERGED, EXIT_SIGNAL
from mnist_accel.commands.json_output import add_json_argument, print_json
from mnist_accel.commands.next_command import next_command
from mnist_accel.commands.train_settings import add_member_arguments
from mnist_accel.data.datasets import is_file
from mnist_accel.errors import DataWarning, UsageError, escaped, usage_errors
from mnist_accel.populations.folder import PopulationConfig, PopulationFolder
from mnist_accel.populations.grid import SETTINGS, make_grid, setting_text
from mnist_accel.populations.population import MEASURES, Population
from mnist_accel.recipes.models import DEFAULT_MODEL, MODEL_ALIASES, RECIPES
from mnist_accel.runs.setup import with_absolute_folder, with_absolute_path
from mnist_accel.runs.signals import interrupt_on_signals

DEFAULT_SEEDS = 10
_DATA = ("dataset", "data_dir", "label_column", "test_split", "kind")
EXAMPLES: Sequence[str] = (
    "two-layer --seeds 20",
    "cnn --seeds 20 --lr 0.003,0.01 --epochs 5",
    "--resume runs/RUN",
    "compare runs/A runs/B",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.usage = "%(prog)s [MODEL] [options]\n       %(prog)s compare RUN_A RUN_B"
    parser.set_defaults(prog=parser.prog)
    parser.add_argument("words", nargs="*", metavar="MODEL", help="short for --model")
    add_list_of_recipes(parser)
    add_member_arguments(parser)
    group = parser.add_argument_group("population")
    group.add_argument(
        "--seeds",
        **seeds(),
        help=f"number of seeds, counted from 0, or a list such as 3,5,8 (default: {DEFAULT_SEEDS})",
    )
    add_backend_arguments(
        group, threads="the number of cores; each member uses one thread, on numba"
    )
    group.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="train on the workers of this Dask scheduler, such as tcp://10.0.0.1:8786 "
        "(default: train here)",
    )
    group.add_argument(
        "--out", metavar="DIR", help="folder of the population (default: a new one in runs/)"
    )
    group.add_argument(
        "--resume",
        metavar="RUN",
        help="train the members of this population that have not ended (default: a new one)",
    )
    group.add_argument(
        "--measure",
        **(one_of("measure", MEASURES) | {"metavar": "NAME"}),
        help="what is summarized and compared: test_accuracy, test_loss, validation_accuracy, "
        "validation_loss, train_accuracy, train_loss or seconds (default: test_accuracy)",
    )
    group.add_argument("--quiet", action="store_true", help="print only the result")
    add_json_argument(group)


def run(args: argparse.Namespace) -> int:
    """Train or compare, and print the result."""
    if args.words[:1] == ["compare"]:
        return _compare(args)
    moved = None  # the new place of a file that has moved
    if args.resume is None:
        folder = _new_folder(args)
    else:
        folder = _existing_folder(args)
        moved = None if args.dataset is None else with_absolute_path(args.dataset)
    from mnist_accel.populations.run import run_population  # imports rich

    with interrupt_on_signals() as interrupt:
        try:
            result = run_population(
                folder, dataset=moved, scheduler=args.scheduler, quiet=args.quiet
            )
        except KeyboardInterrupt:  # before or after the training, or twice during it
            return _interrupted(args, folder, interrupt.signal or signal.SIGINT)
    if result.signal is not None:
        return _interrupted(args, folder, result.signal)
    _print_summary(args, folder, result.population)
    return EXIT_DIVERGED if result.population.failed == len(result.population) else 0


def _interrupted(args: argparse.Namespace, folder: PopulationFolder, signum: int) -> int:
    """Print how to continue, and return the exit code of a signal."""
    command = next_command(args, "population", "--resume", str(folder.path))
    print(f"continue with: {command}", file=sys.stderr)
    return EXIT_SIGNAL + signum


def _new_folder(args: argparse.Namespace) -> PopulationFolder:
    """Create the folder of the population that the arguments describe."""
    given = {k: v for k, v in vars(args).items() if k in SETTINGS and v is not None}
    fixed = {"dataset" if k == "name" else k: v for k, v in data_arguments(args).items()}
    fixed = {name: value for name, value in fixed.items() if value is not None}
    dataset = None
    if _has_own_form(args.dataset):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # the training loads the data again
            dataset = dataset_from(args)
    form = None if dataset is None else dataset.form
    with usage_errors():
        model = _model(args)
        number_or_list = DEFAULT_SEEDS if args.seeds is None else args.seeds
        grid = make_grid(model, seeds=number_or_list, given=given, fixed=fixed, form=form)
        backend = get_backend(args.backend or "auto", device=args.device)
    first = with_absolute_folder(grid.members[0])
    config = PopulationConfig(
        model=model,
        seeds=list(dict.fromkeys(settings.seed for settings in grid.members)),
        given=given,
        fixed={**fixed, "dataset": first.dataset, "data_dir": first.data_dir},
        backend=backend.name,
        device=args.device,
        threads=args.threads,
        form=form,
        class_names=None if dataset is None else dataset.class_names,
        identity=None if dataset is None else dataset.identity,
    )
    return PopulationFolder.create(args.out, config)


def _has_own_form(dataset: str | None) -> bool:
    """Return whether a data set may have other images or classes than MNIST."""
    return dataset is not None and (is_file(dataset) or dataset == "custom")


def _existing_folder(args: argparse.Namespace) -> PopulationFolder:
    """Return the folder to resume.

    Raises:
        UsageError: a setting is given, too.
    """
    names = ("seeds", "model", *_DATA, "backend", "device", "threads", "out")
    given = [name for name in (*SETTINGS, *names) if getattr(args, name, None) is not None]
    if is_file(args.dataset or ""):
        given.remove("dataset")
    if args.words or given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given) or args.words[0]
        raise UsageError(
            f"{flags} cannot be given with --resume; the population continues with its settings"
        )
    return PopulationFolder(Path(args.resume))


def _model(args: argparse.Namespace) -> str:
    """Return the recipe that is given with or without its flag.

    Raises:
        UsageError: two recipes are given.
        ValueError: no recipe has this name.
    """
    names = [*args.words, *([args.model] if args.model is not None else [])]
    if len(names) > 1:
        raise UsageError(f"give one model, got {', '.join(names)}")
    return resolve_name("model", names[0], RECIPES, MODEL_ALIASES) if names else DEFAULT_MODEL


def _print_summary(
    args: argparse.Namespace, folder: PopulationFolder, population: Population
) -> None:
    measure = args.measure or "test_accuracy"
    summary = population.summary(measure)
    if args.json:
        print_json({"folder": str(folder.path), "summary": summary, "members": population.table})
        return
    from mnist_accel.console.tables import print_table

    varied = population.grid.varied
    title = measure.replace("_", " ")
    headers = [*varied, "networks", "failed", f"{title}: mean ± std", "95 % interval of the mean"]
    rows = [
        [
            *(setting_text(row[name]) for name in varied),
            row["n"],
            row["failed"],
            _figures(row, ("mean", "std"), " ± ", measure),
            _figures(row, ("low", "high"), " to ", measure),
        ]
        for row in summary
    ]
    print_table(headers, rows, sys.stdout)
    print(f"all files are in {escaped(str(folder.path))}")


def _figures(row: dict[str, Any], names: tuple[str, ...], separator: str, measure: str) -> str:
    """Return values of a row as text, without those that too few networks do not define."""
    values = [row[name] for name in names if not math.isnan(row[name])]
    form = ".2%" if measure.endswith("accuracy") else ".4g"
    return separator.join(f"{value:{form}}" for value in values) or "-"


def _compare(args: argparse.Namespace) -> int:
    """Compare two populations."""
    if len(args.words) != 3:
        raise UsageError("compare takes two folders: population compare RUN_A RUN_B")
    first, second = (PopulationFolder(Path(path)).load() for path in args.words[1:])
    with usage_errors():
        comparison = first.compare_with(second, measure=args.measure or "test_accuracy")
    if args.json:
        print_json(asdict(comparison))
    else:
        print(comparison)
    return 0
