"""Saving and loading models and trainings.

Both are safetensors files: named arrays, and a header of plain text that says, as JSON, which
network and which training they belong to. A checkpoint holds all that a model file holds, so it can
be loaded as a model too. Nothing in them is ever executed. Files are written whole or not at all,
and carry a digest of their content.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from backends import Backend, get_backend
from mnist_accel.errors import CheckpointError
from mnist_accel.nn.network import Network
from mnist_accel.nn.optimizers import OPTIMIZERS, UpdateRule
from mnist_accel.nn.schedules import SCHEDULES, Schedule
from mnist_accel.nn.serialization import network_from_dict, network_to_dict
from mnist_accel.training.trainer import Progress, Trainer
from mnist_accel.util.files import write_atomically

PathLike: TypeAlias = str | os.PathLike[str]
Tensors: TypeAlias = dict[str, NDArray[Any]]

FORMAT = "mnist_accel/1"
LAST = "last.safetensors"  # the name of a checkpoint in a folder of them
_STATE_PREFIX = "optimizer."
_OPTIMIZERS: dict[str, type[UpdateRule]] = {
    rule.__name__: rule for rule in OPTIMIZERS.values() if isinstance(rule, type)
}
_SCHEDULE_NAMES = {schedule: name for name, schedule in SCHEDULES.items()}


def save_model(path: PathLike, model: Network) -> None:
    """Write the weights of a network, and which network they belong to.

    Raises:
        CheckpointError: the file cannot be written; an earlier one is untouched.
        ValueError: the network has layers that are not this package's.
    """
    _write(_file(path), model.state_dict(), {"network": network_to_dict(model)})


def load_model(path: PathLike, *, backend: Backend | str = "auto") -> Network:
    """Return the network in a model file or in a checkpoint.

    Args:
        path: the file, or a folder that holds a checkpoint.
        backend: a backend, or the name of one.

    Raises:
        CheckpointError: the file is missing, corrupt, or not one of this package.
        BackendUnavailableError: the named backend cannot run here.
    """
    tensors, header = _read(_file(path))
    return _build_network(_file(path), tensors, header, backend)


def save_checkpoint(path: PathLike, trainer: Trainer) -> None:
    """Write all that it takes to go on with a training later.

    Args:
        path: the file, or an existing folder, in which it is called `last.safetensors`.
        trainer: the training.

    Raises:
        CheckpointError: the file cannot be written; an earlier one is untouched.
        ValueError: the network, the optimizer or the schedule is not one of this package.
    """
    if type(trainer.optimizer) not in _OPTIMIZERS.values():
        raise ValueError(f"only optimizers of mnist_accel can be saved, got {trainer.optimizer}")
    if type(trainer.schedule) not in _SCHEDULE_NAMES:
        raise ValueError(f"only schedules of mnist_accel can be saved, got {trainer.schedule}")
    tensors = trainer.model.state_dict()
    for name, array in trainer.optimizer_state.items():
        tensors[_STATE_PREFIX + name] = trainer.model.backend.to_numpy(array)
    training = {
        "optimizer": type(trainer.optimizer).__name__,
        "optimizer_settings": dataclasses.asdict(trainer.optimizer),
        "schedule": _SCHEDULE_NAMES[type(trainer.schedule)],
        "schedule_settings": dataclasses.asdict(trainer.schedule),
        "batch_size": trainer.batch_size,
        "seed": trainer.seed,
        "sampling": trainer.sampling,
        "total_steps": trainer.total_steps,
        "progress": dataclasses.asdict(trainer.progress),
    }
    _write(_file(path), tensors, {"network": network_to_dict(trainer.model), "training": training})


def load_checkpoint(path: PathLike, *, backend: Backend | str = "auto") -> Trainer:
    """Return a training as it was when it was saved.

    On the backend that saved it, what follows is bit-identical to a training never interrupted; on
    another, it is the same within rounding.

    Args:
        path: the file, or the folder, that was given to `save_checkpoint`.
        backend: a backend, or the name of one.

    Raises:
        CheckpointError: the file is missing, corrupt, or not a checkpoint of this package.
        BackendUnavailableError: the named backend cannot run here.
    """
    file = _file(path)
    tensors, header = _read(file)
    if "training" not in header:
        raise CheckpointError(f"{file} holds a model but no training; give a checkpoint to resume")
    model = _build_network(file, tensors, header, backend)
    training = header["training"]
    try:
        trainer = Trainer(
            model,
            _OPTIMIZERS[training["optimizer"]](**training["optimizer_settings"]),
            batch_size=training["batch_size"],
            seed=training["seed"],
            sampling=training["sampling"],
            schedule=_schedule(training),
            total_steps=training["total_steps"],
        )
        trainer.progress = Progress(**training["progress"])
        with model.backend.computation(frozenset()):
            for name, array in trainer.optimizer_state.items():
                array[...] = model.backend.asarray(tensors[_STATE_PREFIX + name], dtype=model.dtype)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file} is not a checkpoint this version can read ({error!r})"
        ) from error
    return trainer


def _schedule(training: dict[str, Any]) -> Schedule:
    return SCHEDULES[training["schedule"]](**training["schedule_settings"])


def _file(path: PathLike) -> Path:
    """Return the file that a user means by a path to a file or to a folder."""
    path = Path(path)
    return path / LAST if path.is_dir() else path


def _build_network(
    file: Path, tensors: Tensors, header: dict[str, Any], backend: Backend | str
) -> Network:
    if isinstance(backend, str):
        backend = get_backend(backend)
    try:
        model = network_from_dict(header["network"], backend=backend)
        weights = {k: v for k, v in tensors.items() if not k.startswith(_STATE_PREFIX)}
        model.load_state_dict(weights)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{file} is not a model this version can read ({error})") from error
    return model


def _write(file: Path, tensors: Tensors, header: dict[str, Any]) -> None:
    metadata = {"format": FORMAT, **{name: json.dumps(value) for name, value in header.items()}}
    metadata["digest"] = _digest(tensors, metadata)
    try:
        write_atomically(file, safetensors.numpy.save(tensors, metadata))
    except OSError as error:
        raise CheckpointError(
            f"cannot write {file}: {error.strerror or error}; "
            "what was saved there before is untouched"
        ) from error


def _read(file: Path) -> tuple[Tensors, dict[str, Any]]:
    """Return the arrays and the header of a file, after checking that it is whole and ours."""
    try:
        with safetensors.safe_open(file, framework="numpy") as content:
            metadata = content.metadata() or {}
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {file}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error
    except Exception as error:  # safetensors' own error, and what NumPy makes of bad headers
        raise CheckpointError(f"{file} is not a whole safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{file} was not written by mnist_accel, or by a version this one does not know "
            f"(format {metadata.get('format')!r}, expected {FORMAT!r})"
        )
    if metadata.pop("digest", None) != _digest(tensors, metadata):
        raise CheckpointError(f"{file} is damaged: it does not have the digest it was saved with")
    try:
        header = {name: json.loads(v) for name, v in metadata.items() if name != "format"}
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{file} is damaged: its header is not JSON ({error})") from error
    return tensors, header


def _digest(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of the metadata, and of names, forms and bytes of all arrays."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
