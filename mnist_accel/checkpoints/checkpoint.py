"""Save and load networks and trainings.

A model file and a checkpoint are both tensor files (see `tensor_file`). A model file contains the
weights and a description of the network. A checkpoint adds the state of the optimizer and the
position in the training, so it can also be loaded as a model. Loading executes no code from a file.
"""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
from msgspec import Meta, Struct

from backends import Backend, as_backend, require_type
from mnist_accel.checkpoints.tensor_file import Tensors, read_tensors, write_tensors
from mnist_accel.data.batches import Sampling
from mnist_accel.errors import CheckpointError
from mnist_accel.nn.network import Network
from mnist_accel.nn.serialization import (
    Settings,
    network_from_dict,
    network_to_dict,
    optimizer_from_dict,
    optimizer_to_dict,
    schedule_from_dict,
    schedule_to_dict,
)
from mnist_accel.training.progress import Progress
from mnist_accel.training.trainer import Trainer
from mnist_accel.util.files import as_path
from mnist_accel.util.schema import AtLeastOne, Name, convert
from mnist_accel.util.text import excerpt
from mnist_accel.util.values import first_value

PathLike: TypeAlias = str | os.PathLike[str]

CHECKPOINT_NAME = "last.safetensors"  # name of the file if the path is a folder
_STATE_PREFIX = "optimizer."


class _Training(Struct, frozen=True):
    """The description of a training in a checkpoint."""

    optimizer: Name
    optimizer_settings: Settings
    schedule: Name
    schedule_settings: Settings
    batch_size: AtLeastOne
    seed: Annotated[int, Meta(ge=0)]
    sampling: Sampling
    total_steps: Annotated[int, Meta(ge=1)] | None
    progress: Progress

    def __post_init__(self) -> None:
        if self.total_steps is not None and self.total_steps > sys.float_info.max:
            raise ValueError("total_steps is too large for a schedule")


def save_model(path: PathLike, model: Network) -> None:
    """Write the weights and the description of a network to a file.

    Raises:
        CheckpointError: the file cannot be written. An existing file is unchanged.
        ValueError: a layer or the loss cannot be saved.
    """
    require_type("model", model, Network, "a network; save_checkpoint writes a Trainer")
    write_tensors(_file(path), model.state_dict(), {"network": network_to_dict(model)})


def load_model_file(path: PathLike, *, backend: Backend | str = "auto") -> Network:
    """Return the network in a model file or a checkpoint.

    Args:
        path: the file, or a folder with a checkpoint.
        backend: a backend or its name.

    Raises:
        CheckpointError: the file is missing, corrupt, or not a file of this program.
        BackendUnavailableError: the backend cannot run here.
    """
    file = _existing_file(path)
    tensors, header = read_tensors(file)
    return _build_network(file, tensors, header, backend)


def save_checkpoint(path: PathLike, trainer: Trainer) -> None:
    """Write a training to a file, so that it can be continued later.

    Args:
        path: the file, or an existing folder, in which the file is `last.safetensors`.
        trainer: the training.

    Raises:
        CheckpointError: the file cannot be written. An existing file is unchanged.
        ValueError: the network, the optimizer or the schedule cannot be saved.
    """
    require_type("trainer", trainer, Trainer, "a Trainer; save_model writes a network")
    tensors = trainer.model.state_dict()
    for name, array in trainer.optimizer_state.items():
        tensors[_STATE_PREFIX + name] = trainer.model.backend.to_numpy(array)
    training = {
        **optimizer_to_dict(trainer.optimizer),
        **schedule_to_dict(trainer.schedule),
        "batch_size": trainer.batch_size,
        "seed": trainer.seed,
        "sampling": trainer.sampling,
        "total_steps": trainer.total_steps,
        "progress": asdict(trainer.progress),
    }
    write_tensors(
        _file(path), tensors, {"network": network_to_dict(trainer.model), "training": training}
    )


def load_checkpoint(path: PathLike, *, backend: Backend | str = "auto") -> Trainer:
    """Return a saved training.

    On the backend that saved it, the continued training is bit-identical to an uninterrupted one.
    On another backend, both agree within rounding.

    Args:
        path: the file or folder that was passed to `save_checkpoint`.
        backend: a backend or its name.

    Raises:
        CheckpointError: the file is missing, corrupt, or not a checkpoint of this program.
        BackendUnavailableError: the backend cannot run here.
    """
    file = _existing_file(path)
    tensors, header = read_tensors(file)
    if "training" not in header:
        raise CheckpointError(f"{file} is a model without a training; give a checkpoint")
    model = _build_network(file, tensors, header, backend)
    try:
        training = convert(header["training"], _Training)
        missing = asdict(training.progress).keys() - header["training"]["progress"].keys()
        if missing:
            raise ValueError(f"the progress has no {', '.join(sorted(missing))}")
        training.progress.check(batch_size=training.batch_size, sampling=training.sampling)
        trainer = Trainer(
            model,
            optimizer_from_dict(training.optimizer, training.optimizer_settings),
            batch_size=training.batch_size,
            seed=training.seed,
            sampling=training.sampling,
            schedule=schedule_from_dict(training.schedule, training.schedule_settings),
            total_steps=training.total_steps,
        )
        trainer.progress = training.progress
        _restore_state(trainer, tensors)
    except ValueError as error:
        raise CheckpointError(
            f"{file} is not a checkpoint that this version can read ({excerpt(error)})"
        ) from error
    return trainer


def _restore_state(trainer: Trainer, tensors: Tensors) -> None:
    """Overwrite the arrays of the optimizer with those in a file.

    Raises:
        ValueError: the file has other arrays than the optimizer, a value is not finite, or a mean
            or sum of squares is negative.
    """
    state, backend = trainer.optimizer_state, trainer.model.backend
    saved = {
        name.removeprefix(_STATE_PREFIX): array
        for name, array in tensors.items()
        if name.startswith(_STATE_PREFIX)
    }
    if saved.keys() != state.keys():
        names = [", ".join(sorted(keys)) or "none" for keys in (saved, state)]
        raise ValueError(f"optimizer arrays are {names[0]}, expected {names[1]}")
    for name, array in state.items():
        found = saved[name]
        if found.shape != array.shape or found.dtype.name != trainer.model.dtype:
            raise ValueError(
                f"{name} has shape {found.shape} and dtype {found.dtype}, expected {array.shape} "
                f"and {trainer.model.dtype}"
            )
        if not np.isfinite(found).all():
            raise ValueError(f"{name} contains {first_value(found, ~np.isfinite(found))}")
        if name.startswith("square_") and (found < 0).any():  # a mean or a sum of squares
            raise ValueError(f"{name} contains {first_value(found, found < 0)}")
        with backend.computation(frozenset()):
            array[...] = backend.asarray(found)


def _file(path: PathLike) -> Path:
    """Return the file for a path to a file or to a folder."""
    path = as_path("path", path)
    return path / CHECKPOINT_NAME if path.is_dir() else path


def _existing_file(path: PathLike) -> Path:
    """Return the file for a path to a file, or to a folder that contains a checkpoint.

    Raises:
        CheckpointError: the folder contains no checkpoint.
    """
    file = _file(path)
    if file != Path(path) and not file.exists():
        raise CheckpointError(
            f"the folder {path} contains no {CHECKPOINT_NAME}; give a file, such as the "
            "model.safetensors of a run, or a folder with a checkpoint"
        )
    return file


def _check_dtype(weights: Tensors, description: Any) -> None:
    """Compare the dtype of the weights with that of the network, before it is built.

    Raises:
        ValueError: they differ.
    """
    dtype = description.get("dtype") if isinstance(description, dict) else None
    for name, array in weights.items():
        if array.dtype.name != dtype:
            raise ValueError(
                f"{excerpt(name, max_chars=40)} has dtype {array.dtype}, but the network has "
                f"{excerpt(dtype, max_chars=40)}"
            )


def _build_network(
    file: Path, tensors: Tensors, header: dict[str, Any], backend: Backend | str
) -> Network:
    backend = as_backend(backend)
    try:
        weights = {k: v for k, v in tensors.items() if not k.startswith(_STATE_PREFIX)}
        shapes = {name: array.shape for name, array in weights.items()}
        _check_dtype(weights, header.get("network"))
        model = network_from_dict(header.get("network"), shapes, backend=backend)
        model.load_state_dict(weights)
    except ValueError as error:
        raise CheckpointError(
            f"{file} is not a model that this version can read ({excerpt(error)})"
        ) from error
    return model
