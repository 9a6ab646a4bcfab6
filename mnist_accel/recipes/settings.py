"""The settings of a run: flags override a configuration file, which overrides the recipe."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Struct

from backends import Aliases, closest_name, create_optimizer, option, resolve_name, shown
from mnist_accel.errors import UsageError, file_errors, usage_errors
from mnist_accel.recipes.models import DEFAULT_MODEL, RECIPES, Recipe, model_name
from mnist_accel.util.input_files import read_regular
from mnist_accel.util.schema import decode_json, decode_toml

# The time to parse TOML may grow with the square of its length.
_MAX_TOML_BYTES = 2**14
MAX_JSON_BYTES = 2**24
LOGS = ("none", "tensorboard")  # where metrics are written in addition to `metrics.jsonl`
_Text: TypeAlias = Annotated[str, Meta(max_length=4096)]
_Settings: TypeAlias = dict[_Text, Any]  # the argument parser checks the values


class _RunConfig(Struct, frozen=True):
    """The part of `config.json` that repeats a run."""

    settings: _Settings


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """All settings of a run. The names are those of the flags of `train`."""

    model: str
    backend: str = "auto"
    threads: int | None = None  # None: the fastest number
    device: str | None = None  # None: the library's default
    no_fallback: bool = False
    dataset: str = "mnist"
    data_dir: str | None = None  # None: the usual places
    label_column: str | None = None  # of a .csv file; None: "label"
    test_split: float | None = None  # fraction of a file without a test set; None: it has one
    kind: str = "auto"  # whether a file contains "pixels" or "features"; "auto": by its values
    epochs: int | None  # None: `iterations` gives the length of the training
    iterations: int | None  # None: `epochs` gives it
    batch_size: int  # 0: the whole set
    sampling: str  # see `BatchSampler`
    lr: float
    optimizer: str
    momentum: float | None = None  # None: the optimizer's default
    weight_decay: float | None  # None: the optimizer's default
    schedule: str
    hidden_sizes: tuple[int, ...]  # empty: no hidden layers
    activation: str  # empty: the recipe has no hidden activation
    seed: int = 0  # of weights, image order and dropout
    dtype: str = "float32"  # of weights and arithmetic
    limit_train: int  # number of training images to use; 0: all
    limit_test: int  # number of test images to use; 0: all
    validation_split: float = 0.0  # fraction of the training set that is held out
    validation_every: int  # epochs between two evaluations
    target_accuracy: float | None = None  # accuracy in 0…1 at which training stops
    patience: int | None = None  # evaluations without improvement after which training stops
    max_seconds: float | None = None  # training time after which training stops
    checkpoint_every: int | None = None  # steps; None: a checkpoint at the end of every epoch
    log_every: int  # steps between two log lines
    log: str = "none"  # of `LOGS`


# Names of other programs for settings, as flags and in configuration files.
SETTING_ALIASES: Aliases = {
    "arch": ("model",),
    "batch": ("batch_size",),
    "epoch": ("epochs",),
    "hidden": ("hidden_sizes",),
    "hiddensize": ("hidden_sizes",),
    "iteration": ("iterations",),
    "learningrate": ("lr",),
    "loginterval": ("log_every",),
    "lrscheduler": ("schedule",),
    "numthreads": ("threads",),
    "opt": ("optimizer",),
    "optim": ("optimizer",),
    "scheduler": ("schedule",),
    "steps": ("iterations",),
    "thread": ("threads",),
    "wd": ("weight_decay",),
}


def resolve(given: Mapping[str, Any]) -> TrainSettings:
    """Return the given settings, completed with those of the recipe.

    Args:
        given: values by name; absent or None for settings that the user did not give.

    Raises:
        UsageError: two values contradict each other, or the model does not accept one.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    with usage_errors():
        name = chosen["model"] = model_name(chosen.get("model", DEFAULT_MODEL))
        recipe = RECIPES[name]
        optimizer = chosen.get("optimizer", recipe.optimizer)
        # The learning rate of a recipe is for its optimizer; another one has its own default.
        lr = recipe.lr if optimizer == recipe.optimizer else create_optimizer(optimizer).lr
    if "epochs" in chosen and "iterations" in chosen:
        raise UsageError(f"give either {option('epochs')} or {option('iterations')}, not both")
    defaults = {**_recipe_settings(recipe), "model": name, "optimizer": optimizer, "lr": lr}
    if "epochs" in chosen:
        defaults["iterations"] = None
    if "iterations" in chosen:
        defaults["epochs"] = None
    if chosen.get("batch_size") and recipe.sampling == "full":
        # Batches in place of the whole set: an epoch then has many steps, not one.
        defaults |= {"sampling": "shuffle", "validation_every": 1}
    elif chosen.get("batch_size") == 0 or chosen.get("sampling") == "full":
        defaults |= {"sampling": "full", "batch_size": 0}
    settings = TrainSettings(**(defaults | chosen))
    if settings.sampling == "full" and settings.batch_size:
        raise UsageError(
            f"{option('sampling', 'full')} takes the whole set: give {option('batch_size', 0)} or "
            f"another {option('sampling')}, got {option('batch_size', settings.batch_size)}"
        )
    return dataclasses.replace(settings, hidden_sizes=tuple(settings.hidden_sizes))


def _recipe_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that a recipe defines, by name."""
    names = {field.name for field in dataclasses.fields(TrainSettings)}
    settings = {name: value for name, value in vars(recipe).items() if name in names}
    # A value that is not set is 0 in a recipe and None in the settings.
    for name in ("epochs", "iterations", "weight_decay"):
        settings[name] = settings[name] or None
    return settings


def read_config(path: str) -> dict[str, Any]:
    """Return the settings in a TOML file or in the `config.json` of an earlier run, by name.

    Raises:
        DataError: the file is missing, or it is not valid TOML or JSON.
        UsageError: the file has a name that is not a flag of `train`.
    """
    is_json = Path(path).suffix == ".json"
    with file_errors(f"read {path}"):
        text = read_regular(path, max_bytes=MAX_JSON_BYTES if is_json else _MAX_TOML_BYTES)
    if is_json:
        content = decode_json(text, _RunConfig, name=path, kind="the config.json of a run").settings
    else:
        content = decode_toml(text, _Settings, name=path, kind="a file of settings")
    settings: dict[str, Any] = {}
    for name, value in content.items():
        setting = _setting_name(name, path)
        if setting in settings:
            raise UsageError(f"{path} sets {setting} twice; remove {name} or its other name")
        settings[setting] = value
    return settings


def _setting_name(name: str, path: str) -> str:
    """Return the setting that a name in a file means.

    Raises:
        UsageError: no setting has this name.
    """
    known = [field.name for field in dataclasses.fields(TrainSettings)]
    try:
        return resolve_name("setting", name, known, SETTING_ALIASES)
    except ValueError:
        close = closest_name(name, known, SETTING_ALIASES)
        hint = f"did you mean {close}?" if close else "train --help lists the settings"
        raise UsageError(f"{path} has an unknown setting {shown(name)}; {hint}") from None
