"""Opening whatever a network may be in: a run, a model file, a checkpoint, legacy weights."""

from pathlib import Path
from typing import Any

from backends import Backend
from mnist_accel.checkpoints.checkpoint import CHECKPOINT_NAME, load_model
from mnist_accel.checkpoints.legacy_weights import read_legacy_weights
from mnist_accel.data import Dataset, load_dataset
from mnist_accel.errors import DataError, usage_errors
from mnist_accel.nn.network import Network
from mnist_accel.recipes.models import create_model
from mnist_accel.recipes.settings import read_config
from mnist_accel.runs.folder import DEFAULT_PARENT, RunFolder

LEGACY_SUFFIXES = (".pkl", ".npy")

# What the programs that wrote such files trained: `.npy` the L-layer network, `.pkl` the softmax
# networks, told apart by their number of layers.
_LEGACY_MODELS = {(".npy", None): "fcnn", (".pkl", 2): "two-layer", (".pkl", 3): "three-layer"}

_REMEDY = (
    f"give the folder of a run, such as {DEFAULT_PARENT}/<time>-<model>-<backend>, or a file of "
    "weights, or train a network first"
)


def find_model(path: str | None) -> Path:
    """Return where a network is to be read from.

    Args:
        path: what the user named; if None, the newest run in `runs/` that is finished, or the
            newest of all if none is.

    Raises:
        DataError: there is no run in `runs/`.
    """
    return RunFolder.newest(prefer_finished=True).path if path is None else Path(path)


def open_model(path: Path, *, backend: Backend, legacy_model: str | None = None) -> Network:
    """Return the network in a file or a run folder.

    Args:
        path: a run folder, a model file, a checkpoint or its folder, or a `.pkl` or `.npy` file of
            legacy weights.
        backend: computes.
        legacy_model: name of the recipe that legacy weights belong to; None to tell by the file.

    Raises:
        DataError: there is nothing there, it is corrupt, or it is refused.
    """
    if path.suffix in LEGACY_SUFFIXES:
        return open_legacy_weights(path, backend=backend, model=legacy_model)
    if not path.exists():
        raise DataError(f"there is no file or folder {path}; {_REMEDY}")
    if path.is_dir() and not (path / CHECKPOINT_NAME).exists():
        return _open_run(RunFolder(path), backend=backend)
    return load_model(path, backend=backend)


def _open_run(run: RunFolder, *, backend: Backend) -> Network:
    if run.model.exists():
        return load_model(run.model, backend=backend)
    if run.checkpoint.exists():
        raise DataError(
            f"the training in {run.path} was interrupted, so there is no {run.model} yet: finish "
            f"it with train --resume {run.path}, or give its checkpoint {run.checkpoint.parent}"
        )
    raise DataError(
        f"{run.path} is not a run folder: it holds neither {run.model.name} nor a checkpoint; "
        f"{_REMEDY}"
    )


def open_dataset(path: Path, *, dataset: str | None, data_dir: str | None) -> Dataset:
    """Return the data set to look at a network with.

    Args:
        path: as given to `open_model`.
        dataset: name of the data set; if None that of the run that `path` is or belongs to, and
            MNIST where there is no run.
        data_dir: folder of its files; that of the run if None, and the usual places where there is
            no run.

    Raises:
        UsageError: `data_dir` does not suit the data set.
        DataError: it cannot be had.
    """
    if dataset is None:
        settings = _settings_of_run(path)
        dataset = settings.get("dataset") or "mnist"
        data_dir = data_dir or settings.get("data_dir")
    with usage_errors():
        return load_dataset(dataset, data_dir=data_dir)


def _settings_of_run(path: Path) -> dict[str, Any]:
    """Return what a run was trained with; nothing if `path` is no part of one."""
    if path.suffix in LEGACY_SUFFIXES:
        return {}
    try:
        run = RunFolder.find(str(path.absolute()))  # seen from inside a run, too
    except DataError:
        return {}
    return read_config(str(run.config))


def open_legacy_weights(file: Path, *, backend: Backend, model: str | None) -> Network:
    """Return a network with weights from the pickled files of the source programs.

    Args:
        file: `.pkl` or `.npy`.
        backend: computes.
        model: name of the recipe; None to tell by the kind of file and the number of layers.

    Raises:
        DataError: the file is corrupt or refused, or its weights do not suit the recipe.
    """
    weights = read_legacy_weights(file)
    layers = len(weights) // 2
    if model is None:
        model = _LEGACY_MODELS.get((file.suffix, None)) or _LEGACY_MODELS.get((file.suffix, layers))
    if model is None:
        raise DataError(f"{file} has {layers} layers; say with --model which recipe it belongs to")
    sizes = [weights[f"W{number}"].shape[1] for number in range(1, layers)]
    try:
        network = create_model(model, backend=backend, hidden_sizes=sizes)
        network.load_state_dict(weights)
    except ValueError as error:
        raise DataError(f"the weights in {file} do not suit model {model!r}: {error}") from error
    return network
