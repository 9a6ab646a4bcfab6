"""The settings of `train`: their flags, and the same settings read from a configuration file."""

import argparse
import dataclasses
from typing import Any, NoReturn, get_args

from backends import OPTIMIZER_ALIASES, OPTIMIZERS
from mnist_accel.commands.argument_types import MAX_SIZE, integer, list_of, number, one_of
from mnist_accel.commands.arguments import (
    OF_THE_RECIPE,
    add_backend_arguments,
    add_data_arguments,
    add_hidden_layer_arguments,
    add_recipe_flag,
)
from mnist_accel.commands.parser import Parser
from mnist_accel.data.batches import Sampling
from mnist_accel.errors import UsageError
from mnist_accel.nn.network import DTYPE_ALIASES, DTYPES
from mnist_accel.nn.schedules import SCHEDULES
from mnist_accel.populations.grid import SETTINGS
from mnist_accel.recipes.settings import LOGS, TrainSettings, read_config

_SETTINGS = {field.name for field in dataclasses.fields(TrainSettings)}
# Settings in a file that no flag can express.
_WITHOUT_VALUE: tuple[Any, ...] = (("no_fallback", False), ("activation", ""), ("hidden_sizes", []))


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each field of `TrainSettings`."""
    network = parser.add_argument_group("network")
    _add_network_arguments(network)
    network.add_argument(
        "--seed",
        **integer(0),
        help="seed of the weights, the image order and dropout (default: 0)",
    )
    _add_backend_arguments(parser.add_argument_group("backend"))
    _add_data_arguments(parser.add_argument_group("data"))
    _add_optimization_arguments(parser.add_argument_group("optimization"))
    end = parser.add_argument_group("end of training")
    _add_stop_arguments(end)
    end.add_argument(
        "--max-seconds",
        **number("S", above=0),
        help="stop after S seconds of training steps (default: never)",
    )
    output = parser.add_argument_group("evaluation and output")
    _add_validation_argument(output)
    _add_output_arguments(output)


def add_member_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the settings of the members of a population, with one or several values.

    Values are separated by commas. Lists of hidden sizes contain commas and are separated by "/".
    """
    _add_network_arguments(parser.add_argument_group("network"))
    _add_data_arguments(parser.add_argument_group("data"))
    _add_optimization_arguments(parser.add_argument_group("optimization"))
    end = parser.add_argument_group("end of training")
    _add_stop_arguments(end)
    _add_validation_argument(end)
    for action in parser._actions:
        if action.dest in SETTINGS:
            separator = "/" if action.dest == "hidden_sizes" else ","
            action.type = list_of(action.type, separator)
            action.choices = None  # argparse would compare the whole list with each of them


def settings_in(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that have a value, by name."""
    return {k: v for k, v in vars(args).items() if k in _SETTINGS and v is not None}


def settings_in_file(path: str) -> dict[str, Any]:
    """Return the settings in a TOML file or `config.json`, checked and converted like flags.

    Raises:
        DataError: the file cannot be read.
        UsageError: a name is unknown or a value is out of range.
    """
    parser = _ConfigParser(prog=path)
    add_settings_arguments(parser)
    words: list[str] = []
    content = read_config(path)
    for name, value in content.items():
        # `config.json` contains every setting, including those that have no value.
        if value is None or (name, value) in _WITHOUT_VALUE:
            continue
        flag = "--" + name.replace("_", "-")
        if value is True:
            words.append(flag)
        else:
            try:
                text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{path}: {flag}: {error}") from error
            words.append(f"{flag}={text}")  # with "=", a negative number is not taken for a flag
    settings = settings_in(parser.parse_args(words))
    if content.get("hidden_sizes") == []:
        settings["hidden_sizes"] = ()
    return settings


class _ConfigParser(Parser):
    """A parser for the values of a configuration file, whose path is `prog`."""

    def error(self, message: str) -> NoReturn:
        """Raise an error that names the file."""
        raise UsageError(f"{self.prog}: {message}")


def _add_network_arguments(group: argparse._ArgumentGroup) -> None:
    add_recipe_flag(group)
    add_hidden_layer_arguments(group)
    group.add_argument(
        "--dtype",
        **one_of("dtype", DTYPES, DTYPE_ALIASES),
        help="dtype of weights and arithmetic (default: float32)",
    )


def _add_backend_arguments(group: argparse._ArgumentGroup) -> None:
    add_backend_arguments(
        group,
        auto="auto, the fastest that can run here, found by a benchmark of less than a second",
        threads="the fastest number, found by the same benchmark",
    )
    group.add_argument(
        "--no-fallback",
        action="store_true",
        default=None,
        help="exit with code 3 if cupy cannot run, instead of training on the CPU",
    )


def _add_data_arguments(group: argparse._ArgumentGroup) -> None:
    add_data_arguments(group)
    for flag, images in (("--limit-train", "training"), ("--limit-test", "test")):
        group.add_argument(
            flag, **integer(0), help=f"number of {images} images to use; 0 uses all {OF_THE_RECIPE}"
        )
    group.add_argument(
        "--validation-split",
        **number("FRACTION", at_least=0, below=1),
        help="fraction of the training images to hold out for validation; 0 validates on the test "
        "set (default: 0)",
    )


def _add_optimization_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--epochs", **integer(1), help=f"length of the training in epochs {OF_THE_RECIPE}")
    add(
        "--iterations",
        **integer(1),
        help="length of the training in steps, instead of --epochs",
    )
    add(
        "--batch-size",
        **integer(0, MAX_SIZE),
        help=f"images per step; 0 uses all training images in every step {OF_THE_RECIPE}",
    )
    add(
        "--sampling",
        **one_of("sampling", get_args(Sampling)),
        help="sampling of batches: from shuffled epochs, with replacement, the full set in "
        f"every step, or epochs in the original order {OF_THE_RECIPE}",
    )
    add(
        "--lr",
        **number("RATE", above=0),
        help="learning rate (default: that of the recipe, or of --optimizer if given)",
    )
    add(
        "--optimizer",
        **one_of("optimizer", OPTIMIZERS, OPTIMIZER_ALIASES),
        help=f"the optimizer {OF_THE_RECIPE}",
    )
    add(
        "--momentum",
        **number("FACTOR", at_least=0, below=1),
        help="momentum of sgd, momentum or nesterov (default: 0 for sgd, 0.9 for the others)",
    )
    add(
        "--weight-decay",
        **number("RATE", at_least=0),
        help="L2 penalty; decoupled from the gradient with adamw (default: that of the recipe or "
        "the optimizer)",
    )
    add(
        "--schedule",
        **one_of("schedule", SCHEDULES),
        help=f"schedule of the learning rate {OF_THE_RECIPE}",
    )


def _add_stop_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--target-accuracy",
        **number("FRACTION", above=0, at_most=1),
        help="stop when the validation accuracy reaches this fraction (default: never)",
    )
    group.add_argument(
        "--patience",
        **integer(1),
        help="stop after N evaluations without improvement (default: never)",
    )


def _add_validation_argument(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--validation-every", **integer(1), help=f"epochs between two evaluations {OF_THE_RECIPE}"
    )


def _add_output_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--checkpoint-every",
        **integer(1),
        help="steps between two checkpoints (default: at the end of an epoch, at most every 5 "
        "seconds)",
    )
    add("--log-every", **integer(1), help=f"steps between two lines of the log {OF_THE_RECIPE}")
    add(
        "--log",
        **one_of("log", LOGS),
        help="tensorboard also writes the metrics and the worst mistakes for TensorBoard, which "
        "`tensorboard --logdir runs` shows (default: none)",
    )
