"""What a run trains: its data, its network with the trainer, and its number of steps."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from numpy.typing import NDArray

from backends import Backend, UpdateRule, create_optimizer, option
from mnist_accel.data import DataForm, Dataset, load_dataset
from mnist_accel.data.batches import BatchSampler, split_indices
from mnist_accel.data.datasets import is_file
from mnist_accel.data.identity import FileIdentity
from mnist_accel.data.own_files import file_path
from mnist_accel.data.sources.folders import ENVIRONMENT_VARIABLE
from mnist_accel.errors import DataError, usage_errors
from mnist_accel.recipes.models import create_model, get_recipe, recipe_layers
from mnist_accel.recipes.settings import TrainSettings
from mnist_accel.training.trainer import Trainer

Examples: TypeAlias = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class RunData:
    """The examples (N, …) and labels (N,) of a run.

    Attributes:
        dataset: the data set that they are part of.
        train: images and labels to train on.
        validation: images and labels to evaluate on between epochs; the test set unless training
            images are held out.
        validation_name: "validation" or "test".
        test: images and labels of the final evaluation.
    """

    dataset: Dataset
    train: Examples
    validation: Examples
    validation_name: str
    test: Examples

    @property
    def train_count(self) -> int:
        """Number of training images."""
        return len(self.train[1])


def with_absolute_folder(settings: TrainSettings) -> TrainSettings:
    """Return the settings with the absolute path of the user's data.

    A run stores its settings. Later commands, possibly in another working folder or without the
    environment variable, read the same data.
    """
    if is_file(settings.dataset):
        return replace(settings, dataset=with_absolute_path(settings.dataset))
    given = settings.data_dir
    if given is None and settings.dataset == "custom":
        given = os.environ.get(ENVIRONMENT_VARIABLE)
    if not given or given.startswith("~") or settings.dataset == "digits":  # needs no folder
        return settings
    return replace(settings, data_dir=os.path.abspath(given))  # noqa: PTH100 - also removes ".."


def with_absolute_path(dataset: str) -> str:
    """Return the name of a data set, with the absolute path if it is that of a file."""
    kind, _, file = dataset.partition(":")
    if not is_file(dataset) or file.startswith("~"):
        return dataset
    return f"{kind}:{os.path.abspath(file)}"  # noqa: PTH100 - also removes ".."


def require_in_place(dataset: str) -> None:
    """Check that the file of a stored data set still exists; other data sets are not checked.

    Raises:
        DataError: it does not.
    """
    if is_file(dataset) and not os.path.lexists(file_path(dataset)):
        file_format, _, path = dataset.partition(":")
        raise DataError(
            f"{path} does not exist; if it has moved, give its new place with "
            f"{option('dataset', f'{file_format}:FILE')}"
        )


def require_identity(identity: FileIdentity | None, dataset: str, stored: str) -> None:
    """Check that the content of a file at a new place can be compared with that of the run.

    Args:
        identity: what the run stores about its file.
        dataset: the data set to read.
        stored: the data set of the run.

    Raises:
        DataError: it cannot.
    """
    if identity is None and is_file(dataset) and dataset != stored:
        raise DataError(
            f"the training began with {stored}, whose SHA-256 is not stored, so {dataset} cannot "
            f"be compared with it; omit {option('dataset')}"
        )


def check_network(settings: TrainSettings) -> None:
    """Check the settings of network and optimizer, before data are loaded and backends measured.

    Raises:
        UsageError: the model or the optimizer does not accept a setting.
    """
    with usage_errors():
        recipe_layers(settings.model, **_hidden_layers(settings))
        make_optimizer(settings)


def load_run_data(settings: TrainSettings, expected: FileIdentity | None = None) -> RunData:
    """Load the data set and split it as the settings require.

    Args:
        settings: settings of the run.
        expected: what the run stores about its files; None to accept any.

    Raises:
        UsageError: the data set does not accept a setting.
        DataError: the data set cannot be obtained, or its files have changed.
    """
    with usage_errors():
        return split_run_data(load_dataset_of(settings, expected), settings)


def load_dataset_of(settings: TrainSettings, expected: FileIdentity | None = None) -> Dataset:
    """Return the data set that the settings select; errors as `load_dataset`.

    With `expected`, the settings are those of a run, whose file may have moved in the meantime.
    """
    if expected is not None:
        require_in_place(settings.dataset)
    options = data_options(vars(settings))
    return load_dataset(settings.dataset, settings.data_dir, expected=expected, **options)


def data_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `load_dataset` in settings by name, without those that are not set."""
    names = ("label_column", "test_split", "kind")
    return {name: settings[name] for name in names if settings.get(name) is not None}


def split_run_data(dataset: Dataset, settings: TrainSettings) -> RunData:
    """Return the part of a data set that a run uses, with training images held out if required.

    Raises:
        ValueError: there are no training examples, or the split would be empty.
    """
    if not len(dataset.t_train):
        raise ValueError(
            f"no example of {dataset.name} is left to train on; give {option('test_split')} below 1"
        )
    train_limit, test_limit = settings.limit_train or None, settings.limit_test or None
    images, labels = dataset.x_train[:train_limit], dataset.t_train[:train_limit]
    test = dataset.x_test[:test_limit], dataset.t_test[:test_limit]
    if not settings.validation_split:
        return RunData(dataset, (images, labels), test, "test", test)
    kept, held_out = split_indices(
        len(labels), fraction=settings.validation_split, seed=settings.seed
    )
    validation = images[held_out], labels[held_out]
    return RunData(dataset, (images[kept], labels[kept]), validation, "validation", test)


def make_trainer(
    settings: TrainSettings, backend: Backend, *, examples: int, form: DataForm | None = None
) -> Trainer:
    """Return the trainer of a new network with initial weights.

    Args:
        settings: settings of the run.
        backend: the backend that computes.
        examples: number of training images, the batch size if the settings have none.
        form: form of the data; None for that of MNIST.

    Raises:
        UsageError: the model does not accept a setting, or two settings contradict each other.
    """
    with usage_errors():
        model = create_model(
            settings.model,
            backend=backend,
            seed=settings.seed,
            dtype=settings.dtype,
            form=form,
            **_hidden_layers(settings),
        )
        return Trainer(
            model,
            make_optimizer(settings),
            batch_size=settings.batch_size or examples,
            seed=settings.seed,
            sampling=settings.sampling,  # type: ignore[arg-type]
            schedule=settings.schedule,
        )


def _hidden_layers(settings: TrainSettings) -> dict[str, Any]:
    """Return the arguments of `create_model` for the hidden layers."""
    has_choice = settings.hidden_sizes or get_recipe(settings.model).hidden_sizes
    return {
        "hidden_sizes": settings.hidden_sizes if has_choice else None,
        "activation": settings.activation or None,
    }


def make_optimizer(settings: TrainSettings) -> UpdateRule:
    """Return the optimizer of a run.

    Raises:
        ValueError: the optimizer does not accept a setting.
    """
    return create_optimizer(
        settings.optimizer,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


def make_sampler(settings: TrainSettings, examples: int) -> BatchSampler:
    """Return the batches of a training on `examples` images.

    Raises:
        UsageError: a setting is not accepted.
    """
    with usage_errors():
        return BatchSampler(
            examples,
            settings.batch_size or examples,
            settings.sampling,  # type: ignore[arg-type]
            settings.seed,
        )


def total_steps(settings: TrainSettings, examples: int) -> int:
    """Return the number of the last step of a training on `examples` images."""
    if settings.iterations:
        return settings.iterations
    return (settings.epochs or 0) * make_sampler(settings, examples).steps_per_epoch
