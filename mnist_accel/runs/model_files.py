"""Loading a network from a run folder, a model file, a checkpoint or legacy weights."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends import Backend, option
from mnist_accel.checkpoints.checkpoint import CHECKPOINT_NAME, PathLike, load_model_file
from mnist_accel.checkpoints.legacy_weights import load_weights, reject_network_arguments
from mnist_accel.checkpoints.tensor_file import is_tensor_file
from mnist_accel.checkpoints.weight_files import is_weight_file
from mnist_accel.data import DataForm, Dataset, load_dataset
from mnist_accel.data.dataset import DIGIT_NAMES
from mnist_accel.data.datasets import class_names, dataset_name, is_file
from mnist_accel.data.identity import FileIdentity
from mnist_accel.data.own_files import is_unchanged
from mnist_accel.data.raw import Kind
from mnist_accel.data.sources.digests import PUBLISHED_SETS
from mnist_accel.errors import (
    CheckpointError,
    DataError,
    DataWarning,
    UsageError,
    file_errors,
    usage_errors,
)
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.network import Network
from mnist_accel.runs.config import stored_config
from mnist_accel.runs.folder import DEFAULT_PARENT, RunFolder
from mnist_accel.runs.schema import DataSettings, PopulationData
from mnist_accel.runs.setup import require_in_place, with_absolute_path
from mnist_accel.util.files import as_path
from mnist_accel.util.schema import convert

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


@dataclass(frozen=True)
class ModelData:
    """The data that belong to a network.

    Attributes:
        settings: the settings of its run that select the data set.
        kind: what the network takes, "pixels" or "features".
        class_names: names of its classes; None if only the data set states them.
        identity: what its run stores about the files of its data set, if these are the user's own.
    """

    settings: DataSettings
    kind: Kind
    class_names: tuple[str, ...] | None
    identity: FileIdentity | None = None

    @property
    def shows_digits(self) -> bool:
        """Whether its classes are the ten digits."""
        return self.class_names == DIGIT_NAMES

    def open(self, **given: Any) -> Dataset:
        """Return the data set to evaluate on, with the labels of the network.

        Args:
            given: arguments of `load_dataset`, `name` and those that the user gave. Without a name,
                the data set is that of the run. The file of the run, or a copy of it, must be
                unchanged and is split as in the training. Another file is read as what the network
                takes, and is a test set as a whole unless it states one. Another table must have
                the same columns.

        Raises:
            UsageError: the data set does not accept an argument.
            DataError: the data set cannot be obtained, its file has changed, or it has other
                columns or a class that the network lacks.
        """
        given = {name: value for name, value in given.items() if value is not None}
        stored = self.settings.arguments()
        is_same = self._is_that_of_the_run(given.get("name", stored["name"]), stored["name"])
        expected = self.identity if is_same and "data_dir" not in given else None
        if is_same:
            given = stored | given
        elif is_file(given["name"]):
            given = {"kind": self.kind} | self._label_column(given["name"]) | given
        with usage_errors(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # these are about training
            dataset = load_dataset(**given, classes=self.class_names, expected=expected)
        if self.identity is not None and dataset.identity is not None:
            self.identity.require_columns(dataset.identity, dataset.source)
            if self.identity.sha256 == dataset.identity.sha256:
                self._require_same_split(given.get("test_split"))
        return dataset

    def _is_that_of_the_run(self, name: str, stored: str) -> bool:
        """Return whether a data set is that of the run, also if its file was moved or copied.

        Raises:
            DataError: a file cannot be read.
        """
        if with_absolute_path(name) == with_absolute_path(stored):
            require_in_place(stored)
            return True
        if self.identity is None or not is_file(name):
            return False
        return is_unchanged(name, self.identity)

    def _label_column(self, name: str) -> dict[str, str]:
        """Return the argument `label_column` for another table, if the run has one."""
        column = self.settings.label_column
        return {"label_column": column} if column and name.startswith("csv:") else {}

    def _require_same_split(self, fraction: float | None) -> None:
        """Check that a file is split into training and test set as in the training.

        Raises:
            UsageError: the fraction of the test set is another.
        """
        used = self.settings.test_split
        if fraction != used:
            raise UsageError(
                f"the network was trained on this file with {option('test_split', used)}, so "
                f"{option('test_split', fraction)} would test it on examples it was trained on; "
                f"omit {option('test_split')}"
            )


def data_of_model(model: Network, path: Path, dataset: str | None = None) -> ModelData:
    """Return the data that belong to a network.

    Args:
        model: the network.
        path: the path given to `load_model`.
        dataset: name of the data set, if the user gave one.

    Raises:
        DataError: `path` is a folder without settings and no data set is given, or the network has
            another number of classes than its data.
    """
    run = None if is_weight_file(path) else _run_of(path, required=dataset is None)
    settings, names, identity = DataSettings(), None, None
    is_training = run is not None and not is_population(run.path)
    if run is not None and is_training:
        config = stored_config(run)[1]
        settings, names, identity = config.settings, config.data.class_names, config.data.identity
    elif run is not None:
        stored = _population_data(run)
        settings, names, identity = stored.fixed, stored.class_names, stored.identity
    kind: Kind = "pixels" if isinstance(model.input, Pixels) else "features"
    if settings.dataset in PUBLISHED_SETS:
        names = class_names(settings.dataset)
    elif names is None:  # no run, a population on the bundled digits, or release 0.1.0
        known = dataset or settings.dataset or "mnist"
        if not is_training and (is_file(known) or known == "custom"):
            return ModelData(settings, kind, None, identity)
        names = class_names(dataset_name(known))
    require_classes(model, path, names)
    return ModelData(settings, kind, names, identity)


def _population_data(run: RunFolder) -> PopulationData:
    """Return what the folder of a population says about its data.

    Raises:
        DataError: `config.json` cannot be read or has other content.
    """
    try:
        return convert(run.read_json(run.config), PopulationData)
    except ValueError as error:
        raise DataError(f"{run.config} is not the config.json of a population: {error}") from error


def require_classes(model: Network, path: Path, names: Sequence[str]) -> None:
    """Check that a network has one output for each class.

    Raises:
        DataError: it has another number.
    """
    if model.classes != len(names):
        raise DataError(
            f"the network in {path} has {model.classes} classes, but the data have {len(names)} "
            f"({', '.join(names)[:200]}); call its predict() from Python"
        )


def check_fits(model: Network, path: Path, form: DataForm) -> None:
    """Check that a network takes examples of a form.

    Raises:
        DataError: it takes others.
    """
    is_images = isinstance(model.input, Pixels)
    if is_images != (form.kind == "pixels") or form.shape not in model.input.shapes:
        shape = "×".join(map(str, model.input_shape))
        takes = "images" if is_images else "features"
        size = form.image_size
        have = f"the images have {size[0]}×{size[1]} pixels" if size else f"the data are {form}"
        raise DataError(
            f"the network in {path} takes {takes} of shape {shape}, but {have}; give the data "
            "that it was trained on"
        )


def image_size(model: Network, path: Path) -> tuple[int, int]:
    """Return height and width of the images that a network takes.

    Raises:
        DataError: it takes something else.
    """
    size = model.input.image_size if isinstance(model.input, Pixels) else None
    if size is None:
        shape = "×".join(map(str, model.input_shape))
        raise DataError(
            f"the network in {path} takes inputs of shape {shape}, which are no gray images; call "
            "its predict() from Python"
        )
    return size


def _run_of(path: Path, *, required: bool) -> RunFolder | None:
    """Return the run to which `path` belongs; None if it belongs to none.

    Raises:
        DataError: it is a folder without settings, and these are required.
    """
    try:
        return RunFolder.find(str(path.absolute()))  # absolute: a relative path lacks its parents
    except DataError as error:
        if not path.is_dir() or not required:
            return None
        raise DataError(
            f"{path} has no config.json, so its data set is unknown; give it with --dataset"
        ) from error
