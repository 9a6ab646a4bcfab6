"""`config.json`: what a run writes into it, and what a resumed run reads from it."""

import platform
import sys
from dataclasses import asdict
from datetime import datetime
from typing import Any

from mnist_accel._version import __version__
from mnist_accel.autotune.choose import Choice
from mnist_accel.errors import DataError
from mnist_accel.recipes.settings import TrainSettings
from mnist_accel.runs.folder import RunFolder
from mnist_accel.runs.setup import RunData
from mnist_accel.training.trainer import Trainer


def run_config(
    settings: TrainSettings, choice: Choice, trainer: Trainer, data: RunData
) -> dict[str, Any]:
    """Return the content of `config.json`: everything needed to repeat the run."""
    selection = choice.selection
    device = selection.backend.device_info()
    return {
        "settings": asdict(settings),
        "backend": {
            "requested": selection.requested,
            "used": selection.backend.name,
            "threads": selection.backend.threads,
            "device": selection.backend.device,
            "reason": selection.reason,
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
            "train_images": data.train_count,
            f"{data.validation_name}_images": len(data.validation[1]),
            "test_images": len(data.test[1]),
        },
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": sys.argv,
    }


def with_earlier(config: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a resumed run, with those in its `config.json` so far."""
    last = {key: value for key, value in before.items() if key != "earlier"}
    return {**config, "earlier": [*before.get("earlier", []), last]}


def backend_used(folder: RunFolder) -> dict[str, Any]:
    """Return the settings `backend`, `threads` and `device` that the run used.

    They differ from the settings of the run if those were "auto", were chosen by a benchmark, or
    if the run fell back to the CPU. Threads or a device are None if the backend has none.

    Raises:
        DataError: `config.json` cannot be read or lacks these values.
    """
    match folder.read_json(folder.config):
        case {"backend": {"used": str(name)} as backend}:
            # Early versions wrote neither threads nor a device.
            match backend.get("threads"), backend.get("device"):
                case int(threads) | (None as threads), int(device) | (None as device):
                    return {"backend": name, "threads": threads, "device": device}
    raise DataError(f"{folder.config} does not state which backend was used")


def check_same_batches(folder: RunFolder, trainer: Trainer, batch_size: int) -> None:
    """Check that a checkpoint has the batch size of its run, before a batch is allocated.

    Raises:
        DataError: it has another one.
    """
    if trainer.batch_size != batch_size:
        raise DataError(
            f"{folder.checkpoint} has a batch size of {trainer.batch_size}, but {folder.config} "
            f"one of {batch_size}; restore the files of the run from a backup"
        )


def check_same_data(folder: RunFolder, config: dict[str, Any], data: RunData) -> None:
    """Check that the number of training images has not changed since the run began.

    Raises:
        DataError: it has changed.
    """
    images = config.get("data", {}).get("train_images")
    if images != data.train_count:
        raise DataError(
            f"{folder.path} was trained on {images} images, but {data.dataset.source} now has "
            f"{data.train_count}; resume the run with the data it began with"
        )
