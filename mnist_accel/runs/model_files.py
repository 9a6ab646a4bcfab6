"""Loading a network from a run folder, a model file, a checkpoint or legacy weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends import Backend
from mnist_accel.checkpoints.checkpoint import CHECKPOINT_NAME, PathLike, load_model_file
from mnist_accel.checkpoints.legacy_weights import load_weights, reject_network_arguments
from mnist_accel.checkpoints.tensor_file import is_tensor_file
from mnist_accel.checkpoints.weight_files import is_weight_file
from mnist_accel.data import Dataset, load_dataset
from mnist_accel.errors import CheckpointError, DataError, file_errors, usage_errors
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.network import Network
from mnist_accel.recipes.settings import read_config
from mnist_accel.runs.folder import DEFAULT_PARENT, RunFolder
from mnist_accel.util.files import as_path

_SUFFIX = Path(CHECKPOINT_NAME).suffix
_REMEDY = (
    f"give a run folder, such as {DEFAULT_PARENT}/<time>-<model>-<backend>, or a file with "
    "weights, or train a network first"
)


def find_model(path: PathLike | None) -> Path:
    """Return `path`; if it is None, the newest run in `runs/`, a finished one if possible.

    Raises:
        DataError: `runs/` contains no run.
    """
    return RunFolder.newest(prefer_finished=True).path if path is None else as_path("path", path)


def is_population(path: Path) -> bool:
    """Return whether a path is the folder of a population, which has many networks."""
    return (path / "members.jsonl").is_file()


def is_model(path: str) -> bool:
    """Return whether a path looks like one that `load_model` accepts, rather than a picture."""
    file = Path(path)
    if file.is_dir():
        return (file / "config.json").exists() or (file / CHECKPOINT_NAME).exists()
    return file.suffix == _SUFFIX or is_weight_file(file)


def load_model(
    path: PathLike | None = None,
    *,
    backend: Backend | str = "auto",
    model: str | None = None,
    activation: str | None = None,
) -> Network:
    """Return a trained network, as the commands `evaluate` and `predict` load it.

    Args:
        path: a run folder, a model file, a checkpoint or its folder, or a pickle, `.npy` file or
            `.npz` archive of legacy weights; None for the newest run in `runs/`, a finished one if
            possible.
        backend: a backend or its name.
        model: recipe of legacy weights; None to derive it from the file.
        activation: activation of legacy weights; None for that of the recipe.

    Raises:
        DataError: the file or folder is missing, corrupt or rejected.
        ValueError: `model` or `activation` is unknown, or is given for a file that states it.
        BackendUnavailableError: the backend cannot run here.
    """
    path = find_model(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; {_REMEDY}")
    if is_weight_file(path):
        return load_weights(path, model=model, activation=activation, backend=backend)
    reject_network_arguments(path, model=model, activation=activation)
    if is_population(path):
        raise CheckpointError(
            f"{path} is a population; choose one of its networks with --member N, its number in "
            "the population's table"
        )
    if path.is_dir() and not (path / CHECKPOINT_NAME).exists():
        path = _final_weights(RunFolder(path))
    with file_errors(f"read {path}"):
        is_other = path.suffix != _SUFFIX and path.is_file() and not is_tensor_file(path)
    if is_other:
        raise CheckpointError(
            f"{path} contains no network; accepted are run folders, .safetensors files, and "
            "weights in .pkl, .npy and .npz files (predict --image reads pictures)"
        )
    return load_model_file(path, backend=backend)


def _final_weights(run: RunFolder) -> Path:
    """Return the model file of a finished run."""
    if run.model.exists():
        return run.model
    if run.checkpoint.exists():
        raise CheckpointError(
            f"the run {run.path} was interrupted and has no {run.model.name} yet; finish it with "
            f"train --resume {run.path}, or give its checkpoint {run.checkpoint.parent}"
        )
    raise CheckpointError(
        f"{run.path} is not a run folder: it contains neither {run.model.name} nor a checkpoint; "
        f"{_REMEDY}"
    )


def open_dataset(path: Path, *, dataset: str | None, data_dir: str | None) -> Dataset:
    """Return the data set to evaluate a network on.

    Args:
        path: the path given to `load_model`.
        dataset: name of the data set; None for that of the run to which `path` belongs, or MNIST
            if it belongs to no run.
        data_dir: folder of the files of the data set; None for that of the run, or the default
            places if `path` belongs to no run.

    Raises:
        UsageError: the data set needs a folder or accepts none.
        DataError: the data set cannot be obtained.
    """
    if dataset is None:
        settings = _settings_of_run(path)
        dataset = settings.get("dataset") or "mnist"
        data_dir = data_dir or settings.get("data_dir")
    with usage_errors():
        return load_dataset(dataset, data_dir=data_dir)


def dataset_name(path: Path, dataset: str | None) -> str:
    """Return `dataset`; if it is None, the data set of the run of `path`, or MNIST."""
    return dataset or _settings_of_run(path).get("dataset") or "mnist"


def check_fits(model: Network, path: Path, class_names: Sequence[str]) -> None:
    """Check that a network takes images of 28×28 pixels and has one output for each class.

    Args:
        model: the network.
        path: its file, for the message.
        class_names: the classes of the data set.

    Raises:
        DataError: the network takes other images, or has another number of classes.
    """
    shape = "×".join(map(str, model.input_shape))
    kind = "images" if isinstance(model.input, Pixels) else "features"
    if not isinstance(model.input, Pixels) or (28, 28) not in model.input.shapes:
        raise DataError(
            f"the network in {path} takes {kind} of shape {shape}, but the images have 28×28 "
            f"pixels; call its predict() from Python with {kind} of its own shape"
        )
    if model.classes != len(class_names):
        raise DataError(
            f"the network in {path} has {model.classes} classes, but the data have "
            f"{len(class_names)} ({', '.join(class_names)}); call its predict() from Python"
        )


def _settings_of_run(path: Path) -> dict[str, Any]:
    """Return the settings of the run to which `path` belongs; empty if a file belongs to no run.

    Raises:
        DataError: it is a folder without settings.
    """
    if is_weight_file(path):
        return {}
    try:
        run = RunFolder.find(str(path.absolute()))  # absolute: a relative path lacks its parents
    except DataError as error:
        if not path.is_dir():
            return {}
        raise DataError(
            f"{path} has no config.json, so its data set is unknown; give it with --dataset"
        ) from error
    if is_population(run.path):
        content = run.read_json(run.config)
        settings: dict[str, Any] = content.get("fixed") or {}
        return settings
    return read_config(str(run.config))
