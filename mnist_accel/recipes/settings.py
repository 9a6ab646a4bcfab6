"""What a training run is told: flags over a configuration file over the recipe's own settings."""

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_accel.errors import DataError, UsageError, usage_errors
from mnist_accel.nn.optimizers import create_optimizer
from mnist_accel.recipes.models import DEFAULT_MODEL, get_recipe


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides how a run goes; names are those of the flags.

    Attributes:
        model: name of the recipe.
        backend: name of the backend asked for.
        threads: the most that may be used, of the CPU; None where the fastest number is chosen.
        device: number of the GPU; None for CUDA's own choice, the first.
        no_fallback: end with an error where that backend cannot run.
        dataset: name of the data set.
        data_dir: folder of the data set's files; None to look in the usual places.
        epochs: length of the training in epochs; None where `iterations` gives it.
        iterations: length of the training in steps; None where `epochs` gives it.
        batch_size: images a step; 0 for the whole set.
        sampling: how batches are drawn.
        lr: learning rate.
        optimizer: name of the optimizer.
        momentum: of the optimizer; None for its default.
        weight_decay: of the optimizer; None for its default.
        schedule: name of the learning-rate schedule.
        hidden_sizes: units of the hidden layers.
        activation: of the hidden layers; empty where the recipe has none.
        seed: of weights, order and dropout.
        dtype: of weights and arithmetic.
        limit_train: images of the training set that are used; 0 for all.
        limit_test: images of the test set that are used; 0 for all.
        validation_split: part of the training set that is held out; 0 for none.
        validation_every: epochs between two evaluations.
        target_accuracy: accuracy in 0…1 at which training ends; None for none.
        patience: evaluations without improvement after which training ends; None for none.
        max_seconds: training time after which training ends; None for none.
        checkpoint_every: steps between two checkpoints; None for the ends of epochs.
        log_every: steps between two lines of the log.
    """

    model: str
    backend: str
    threads: int | None
    device: int | None
    no_fallback: bool
    dataset: str
    data_dir: str | None
    epochs: int | None
    iterations: int | None
    batch_size: int
    sampling: str
    lr: float
    optimizer: str
    momentum: float | None
    weight_decay: float | None
    schedule: str
    hidden_sizes: tuple[int, ...]
    activation: str
    seed: int
    dtype: str
    limit_train: int
    limit_test: int
    validation_split: float
    validation_every: int
    target_accuracy: float | None
    patience: int | None
    max_seconds: float | None
    checkpoint_every: int | None
    log_every: int


def resolve(given: Mapping[str, Any]) -> TrainSettings:
    """Complete what the user gave by the settings of the recipe.

    Args:
        given: values by name; absent or None where the user said nothing.

    Raises:
        UsageError: two values contradict each other, or do not suit the model.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    name = chosen.get("model", DEFAULT_MODEL)
    with usage_errors():
        recipe = get_recipe(name)
        optimizer = chosen.get("optimizer", recipe.optimizer)
        # The recipe's learning rate suits the recipe's optimizer only; another one brings its own.
        lr = recipe.lr if optimizer == recipe.optimizer else create_optimizer(optimizer).lr
    if "epochs" in chosen and "iterations" in chosen:
        raise UsageError("give either --epochs or --iterations, not both")
    defaults: dict[str, Any] = {
        "model": name,
        "backend": "auto",
        "threads": None,
        "device": None,
        "no_fallback": False,
        "dataset": "mnist",
        "data_dir": None,
        "epochs": recipe.epochs or None,
        "iterations": recipe.iterations or None,
        "batch_size": recipe.batch_size,
        "sampling": recipe.sampling,
        "lr": lr,
        "optimizer": optimizer,
        "momentum": None,
        "weight_decay": recipe.weight_decay or None,
        "schedule": recipe.schedule,
        "hidden_sizes": recipe.hidden_sizes,
        "activation": recipe.activation,
        "seed": 0,
        "dtype": "float32",
        "limit_train": recipe.limit_train,
        "limit_test": recipe.limit_test,
        "validation_split": 0.0,
        "validation_every": recipe.validation_every,
        "target_accuracy": None,
        "patience": None,
        "max_seconds": None,
        "checkpoint_every": None,
        "log_every": recipe.log_every,
    }
    if "epochs" in chosen:
        defaults["iterations"] = None
    if "iterations" in chosen:
        defaults["epochs"] = None
    if chosen.get("batch_size") and recipe.sampling == "full":
        # Mini-batches in place of the whole set: an "iteration" means something else then.
        defaults |= {"sampling": "shuffle", "validation_every": 1}
    elif chosen.get("batch_size") == 0 or chosen.get("sampling") == "full":
        defaults |= {"sampling": "full", "batch_size": 0}
    settings = TrainSettings(**(defaults | chosen))
    if settings.sampling == "full" and settings.batch_size:
        raise UsageError(
            "--sampling full takes the whole set: give --batch-size 0 or another --sampling, "
            f"got --batch-size {settings.batch_size}"
        )
    return dataclasses.replace(settings, hidden_sizes=tuple(settings.hidden_sizes))


def read_config(path: str) -> dict[str, Any]:
    """Read settings from a TOML file, or from the `config.json` of an earlier run.

    Returns:
        Values by flag name, as written.

    Raises:
        DataError: the file is missing or is not what its name says.
        UsageError: it holds something that is not a flag of `train`.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(
            f"{path} is not valid {'JSON' if file.suffix == '.json' else 'TOML'}: {error}"
        ) from error
    if file.suffix == ".json":
        content = content.get("settings") if isinstance(content, dict) else None
        if not isinstance(content, dict):
            raise DataError(f"{path} is not the config.json of a run: it has no settings")
    known = {field.name for field in dataclasses.fields(TrainSettings)}
    named = {name.replace("-", "_"): value for name, value in content.items()}
    unknown = sorted(named.keys() - known)
    if unknown:
        raise UsageError(
            f"{path} sets {', '.join(unknown)}; known settings are {', '.join(sorted(known))}"
        )
    return named
