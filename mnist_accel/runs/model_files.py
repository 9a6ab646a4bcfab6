"""Loading a network from a run folder, a model file, a checkpoint or legacy weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends import Backend
from mnist_accel.checkpoints.checkpoint import CHECKPOINT_NAME, load_model
from mnist_accel.checkpoints.legacy_weights import read_legacy_weights
from mnist_accel.data import Dataset, load_dataset
from mnist_accel.data.arrays import accepts_images
from mnist_accel.errors import DataError, usage_errors
from mnist_accel.nn.network import Network
from mnist_accel.recipes.models import create_model
from mnist_accel.recipes.settings import read_config
from mnist_accel.runs.folder import DEFAULT_PARENT, RunFolder

LEGACY_SUFFIXES = (".pkl", ".npy")

# The recipe of legacy weights, by file type and number of layers. The source program of the L-layer
# network wrote `.npy` files, those of the softmax networks wrote `.pkl` files.
_LEGACY_MODELS = {(".npy", None): "fcnn", (".pkl", 2): "two-layer", (".pkl", 3): "three-layer"}

_REMEDY = (
    f"give a run folder, such as {DEFAULT_PARENT}/<time>-<model>-<backend>, or a file with "
    "weights, or train a network first"
)


def find_model(path: str | None) -> Path:
    """Return `path`; if it is None, the newest run in `runs/`, a finished one if possible.

    Raises:
        DataError: `runs/` contains no run.
    """
    return RunFolder.newest(prefer_finished=True).path if path is None else Path(path)


def open_model(path: Path, *, backend: Backend, legacy_model: str | None = None) -> Network:
    """Return the network in a file or a run folder.

    Args:
        path: a run folder, a model file, a checkpoint or its folder, or a `.pkl` or `.npy` file of
            legacy weights.
        backend: the backend of the network.
        legacy_model: recipe of legacy weights; None to derive it from the file.

    Raises:
        DataError: the file or folder is missing, corrupt or refused.
    """
    if path.suffix in LEGACY_SUFFIXES:
        return _open_legacy_weights(path, backend=backend, model=legacy_model)
    if not path.exists():
        raise DataError(f"{path} does not exist; {_REMEDY}")
    if path.is_dir() and not (path / CHECKPOINT_NAME).exists():
        return _open_run(RunFolder(path), backend=backend)
    return load_model(path, backend=backend)


def _open_run(run: RunFolder, *, backend: Backend) -> Network:
    if run.model.exists():
        return load_model(run.model, backend=backend)
    if run.checkpoint.exists():
        raise DataError(
            f"the run {run.path} was interrupted and has no {run.model.name} yet; finish it with "
            f"train --resume {run.path}, or give its checkpoint {run.checkpoint.parent}"
        )
    raise DataError(
        f"{run.path} is not a run folder: it contains neither {run.model.name} nor a checkpoint; "
        f"{_REMEDY}"
    )


def open_dataset(path: Path, *, dataset: str | None, data_dir: str | None) -> Dataset:
    """Return the data set to evaluate a network on.

    Args:
        path: the path given to `open_model`.
        dataset: name of the data set; None for that of the run to which `path` belongs, or MNIST
            if it belongs to no run.
        data_dir: folder of the files of the data set; None for that of the run, or the default
            places if `path` belongs to no run.

    Raises:
        UsageError: `data_dir` does not suit the data set.
        DataError: the data set cannot be obtained.
    """
    if dataset is None:
        settings = _settings_of_run(path)
        dataset = settings.get("dataset") or "mnist"
        data_dir = data_dir or settings.get("data_dir")
    with usage_errors():
        return load_dataset(dataset, data_dir=data_dir)


def check_fits(model: Network, path: Path, class_names: Sequence[str]) -> None:
    """Check that a network takes images of 28×28 pixels and has one output for each class.

    Args:
        model: the network.
        path: its file, for the message.
        class_names: the classes of the data set.

    Raises:
        DataError: the network suits other images.
    """
    shape = "×".join(map(str, model.input_shape))
    if not accepts_images((28, 28), input_shape=model.input_shape):
        raise DataError(
            f"the network in {path} takes inputs of shape {shape}, but the images have 28×28 "
            "pixels; call its predict() from Python with images of its own shape"
        )
    if model.classes != len(class_names):
        raise DataError(
            f"the network in {path} has {model.classes} classes, but the data have "
            f"{len(class_names)} ({', '.join(class_names)}); call its predict() from Python"
        )


def _settings_of_run(path: Path) -> dict[str, Any]:
    """Return the settings of the run to which `path` belongs; empty if it belongs to no run."""
    if path.suffix in LEGACY_SUFFIXES:
        return {}
    try:
        run = RunFolder.find(str(path.absolute()))  # absolute: a relative path lacks its parents
    except DataError:
        return {}
    return read_config(str(run.config))


def _open_legacy_weights(file: Path, *, backend: Backend, model: str | None) -> Network:
    """Return a network of the recipe `model` with weights that a source program has pickled."""
    weights = read_legacy_weights(file)
    layers = len(weights) // 2
    if model is None:
        model = _LEGACY_MODELS.get((file.suffix, None)) or _LEGACY_MODELS.get((file.suffix, layers))
    if model is None:
        raise DataError(f"no recipe is known for {file} with {layers} layers; give --model")
    sizes = [weights[f"W{number}"].shape[1] for number in range(1, layers)]
    try:
        network = create_model(model, backend=backend, hidden_sizes=sizes)
        network.load_state_dict(weights)
    except ValueError as error:
        raise DataError(f"the weights in {file} do not suit model {model!r}: {error}") from error
    return network
