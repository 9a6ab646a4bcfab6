"""`config.json`: what a run writes into it, and what a resumed run reads from it."""

import platform
import sys
from dataclasses import asdict
from datetime import datetime
from typing import Any

from mnist_accel._version import __version__
from mnist_accel.autotune.choose import Choice
from mnist_accel.errors import DataError
from mnist_accel.nn.schedules import create_schedule
from mnist_accel.recipes.settings import TrainSettings
from mnist_accel.runs.folder import RunFolder
from mnist_accel.runs.schema import RunConfig
from mnist_accel.runs.setup import RunData, make_optimizer, make_trainer
from mnist_accel.training.trainer import Trainer
from mnist_accel.util.schema import convert
from mnist_accel.util.text import abbreviate_home, count


def run_config(
    settings: TrainSettings, choice: Choice, trainer: Trainer, data: RunData
) -> dict[str, Any]:
    """Return the content of `config.json`: everything needed to repeat the run."""
    selection = choice.selection
    device = selection.backend.device_info()
    identity = data.dataset.identity
    return {
        "settings": asdict(settings),
        "backend": {
            "requested": selection.requested,
            "used": selection.backend.name,
            "threads": selection.backend.threads,
            "device": selection.backend.device,
            "reason": abbreviate_home(selection.reason),
            "figures": choice.measurements,
            "fell_back": selection.fell_back,
            "compiled": trainer.compiled is not None,
            "not_compiled": trainer.not_compiled,
        },
        "device": {"name": device.name, "memory_total_bytes": device.memory_total_bytes},
        "versions": {
            "mnist_accel": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            **device.libraries,
        },
        "data": {
            "name": data.dataset.name,
            "source": data.dataset.source,
            "kind": data.dataset.kind,
            "shape": list(data.dataset.form.shape),
            "class_names": list(data.dataset.class_names),
            **({} if identity is None else {"identity": asdict(identity)}),
            "train_images": data.train_count,
            f"{data.validation_name}_images": len(data.validation[1]),
            "test_images": len(data.test[1]),
        },
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": sys.argv,
    }


def with_earlier(config: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return `config` with the previous `config.json`, `before`, added to its list "earlier".

    A resumed run has the same data, so the names of perhaps many columns are not repeated.
    """
    last = {key: value for key, value in before.items() if key != "earlier"}
    if "identity" in last.get("data", {}):
        last["data"] = {key: value for key, value in last["data"].items() if key != "identity"}
    return {**config, "earlier": [*before.get("earlier", []), last]}


def stored_config(folder: RunFolder) -> tuple[dict[str, Any], RunConfig]:
    """Return the content of `config.json`, and the checked part that a resumed run reads.

    Raises:
        DataError: the file cannot be read or has other content.
    """
    content = folder.read_json(folder.config)
    try:
        return content, convert(content, RunConfig)
    except ValueError as error:
        raise DataError(f"{folder.config} is not the config.json of a run: {error}") from error


def backend_used(folder: RunFolder) -> dict[str, Any]:
    """Return the settings `backend`, `threads` and `device` that the run used.

    They differ from the settings of the run if those were "auto", were chosen by a benchmark, or
    if the run fell back to the CPU. Threads or a device are None if the backend has none.

    Raises:
        DataError: `config.json` cannot be read or lacks these values.
    """
    backend = stored_config(folder)[1].backend
    return {"backend": backend.used, "threads": backend.threads, "device": backend.device}


def check_same_training(
    folder: RunFolder, trainer: Trainer, settings: TrainSettings, data: RunData
) -> None:
    """Check that a checkpoint belongs to the settings of its run.

    Raises:
        DataError: it has another network, optimizer, batch size or position.
    """
    progress, examples = trainer.progress, data.train_count
    backend, form = trainer.model.backend, data.dataset.form
    model = make_trainer(settings, backend, examples=examples, form=form).model
    pairs = {
        "network": (trainer.model.name, model.name),
        "layers": (trainer.model.describe(), model.describe()),
        "dtype": (trainer.model.dtype, settings.dtype),
        "optimizer": (trainer.optimizer, make_optimizer(settings)),
        "schedule": (trainer.schedule, create_schedule(settings.schedule)),
        "batch size": (trainer.batch_size, settings.batch_size or examples),
        "sampling": (trainer.sampling, settings.sampling),
        "seed": (trainer.seed, settings.seed),
        "step": (
            progress.step,
            progress.epoch * trainer.sampler(examples).steps_per_epoch + progress.epoch_step,
        ),
    }
    for name, (found, expected) in pairs.items():
        if found != expected:
            raise DataError(
                f"{folder.checkpoint} has the {name} {found}, but the settings in {folder.config} "
                f"give {expected}, and a resumed run keeps its settings; restore the file, or "
                f"start a new run with --config {folder.config}"
            )


def check_same_data(folder: RunFolder, config: RunConfig, data: RunData) -> None:
    """Check that data set, number of training images and classes are those the run began with.

    The name is not checked if the content of the files has been compared.

    Raises:
        DataError: they have changed.
    """
    name, images = config.data.name, config.data.train_images
    if config.data.identity is None and name not in (None, data.dataset.name):
        raise DataError(
            f"{folder.path} was trained on {name}, but the settings in {folder.config} give "
            f"{data.dataset.name}; restore the file, or start a new run with --config "
            f"{folder.config}"
        )
    if images != data.train_count:
        raise DataError(
            f"{folder.path} was trained on {count(images, data.dataset.form.noun)}, but "
            f"{data.dataset.source} now has {data.train_count:,}; resume the run with the data it "
            "began with"
        )
    names = config.data.class_names
    if names is not None and tuple(names) != data.dataset.class_names:
        raise DataError(
            f"{folder.path} was trained on the classes {', '.join(names)[:200]}, but "
            f"{data.dataset.source} now has {', '.join(data.dataset.class_names)[:200]}; resume "
            "the run with the data it began with"
        )
