"""Load data sets by name.

`load_dataset` returns uint8 images, or what a file contains. `load_mnist` also normalizes, flattens
and one-hot encodes.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import (
    Aliases,
    as_boolean,
    option,
    require_type,
    resolve_name,
    shown,
    unknown_name,
)
from mnist_accel.data.dataset import DIGIT_NAMES, Dataset
from mnist_accel.data.identity import FileIdentity
from mnist_accel.data.idx import parse_idx
from mnist_accel.data.own_files import load_custom, load_file, warn_about_classes
from mnist_accel.data.raw import KINDS
from mnist_accel.data.sources.digests import FILE_NAMES, PUBLISHED_SETS
from mnist_accel.errors import DataError

DATASETS = ("mnist", "fashion-mnist", "digits", "custom")
FILE_FORMATS = ("npz", "csv")  # a file is named with its format: "csv:FILE"
KIND_NAMES = ("auto", *KINDS)
DATASET_ALIASES: Aliases = {"fashion": ("fashion-mnist",), "fmnist": ("fashion-mnist",)}

_FASHION_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def class_names(dataset: str) -> tuple[str, ...]:
    """Return the names of the classes of a data set that is not read from the user's files."""
    return _FASHION_NAMES if dataset == "fashion-mnist" else DIGIT_NAMES


def is_file(dataset: str) -> bool:
    """Return whether the name of a data set is that of a file: "npz:FILE" or "csv:FILE"."""
    return dataset.lower().startswith(tuple(f"{name}:" for name in FILE_FORMATS))


def dataset_name(name: str) -> str:
    """Return the name of a data set in any spelling of it; "csv:FILE" is unchanged.

    Raises:
        ValueError: the name is unknown.
    """
    require_type("name", name, str, "the name of a data set")
    if is_file(name):
        kind, _, path = name.partition(":")
        if not path:
            raise ValueError(f"{name} names no file; write it as {kind.lower()}:FILE")
        return f"{kind.lower()}:{path}"
    try:
        return resolve_name("data set", name, DATASETS, DATASET_ALIASES)
    except ValueError:
        suffix = Path(name).suffix.lower().removeprefix(".")
        if suffix in FILE_FORMATS:
            message = f"a file is named with its format; did you mean {suffix}:{name}?"
            raise ValueError(message) from None
        known = (*DATASETS, *(f"{kind}:FILE" for kind in FILE_FORMATS))
        raise ValueError(unknown_name("data set", name, known, DATASET_ALIASES)) from None


def load_dataset(
    name: str = "mnist",
    data_dir: str | Path | None = None,
    *,
    label_column: str | None = None,
    test_split: float | None = None,
    kind: str = "auto",
    classes: Sequence[str] | None = None,
    expected: FileIdentity | None = None,
) -> Dataset:
    """Return a data set. A published set that is not on this machine is downloaded and cached.

    Args:
        name: "mnist", "fashion-mnist" or "FashionMNIST", "digits" (the 1797 digits of scikit-learn,
            included in the package), "custom" (the user's own four IDX files), or "npz:FILE" or
            "csv:FILE". An archive contains the arrays x_train, y_train, x_test and y_test, or x and
            y. A table has a header, a column of labels, and optionally a column "split" whose
            values are train and test.
        data_dir: the folder with the four IDX files (plain or `.gz`), its parent folder, one of the
            files, or Keras' `mnist.npz`. The default is the value of the environment variable
            `MNIST_ACCEL_DATA`. If either is given, no other source is tried, and a missing or
            corrupt file is an error. "digits" and files accept no folder.
        label_column: the column of a `.csv` file with the labels; None for "label".
        test_split: fraction of the examples of a file without a test set that become the test set.
            The choice is random and the same each time. With 1, the whole file is a test set, in
            its order.
        kind: whether a file contains "pixels" or "features"; "auto" decides by `choose_kind`.
        classes: names of the classes of a trained network, to evaluate it: labels become their
            indices. A file without a test set is one as a whole then, unless `test_split` is given.
        expected: the attribute `identity` of an earlier result, to refuse files of yours that have
            changed since; None accepts any.

    Raises:
        ValueError: `name` is unknown, or an argument is missing or does not apply to it.
        TypeError: an argument has a wrong type.
        DataError: the data are missing or corrupt, cannot be read, have changed, or have a class
            that is not one of `classes`.

    Warns:
        DataWarning: a class of a file has no training example, or a single example; not if
            `classes` are given or the whole file is a test set.
    """
    name = dataset_name(name)
    kind = resolve_name("kind", kind, KIND_NAMES)
    if data_dir is not None:
        require_type("data_dir", data_dir, str | PathLike, "a string or a pathlib.Path")
        if name == "digits" or is_file(name):
            raise ValueError(
                f"the data set {name} accepts no folder, got {option('data_dir', str(data_dir))}; "
                "omit it"
            )
    if not is_file(name):
        _reject_options_of_files(name, label_column=label_column, test_split=test_split, kind=kind)
    if label_column is not None:
        require_type("label_column", label_column, str, "the name of a column")
    if expected is not None:
        require_type("expected", expected, FileIdentity, "the attribute identity of a data set")
    if classes is not None:
        classes = _checked_classes(classes)
    try:
        if is_file(name):
            dataset = load_file(
                name,
                label_column=label_column,
                test_split=test_split,
                kind=kind,
                classes=classes,
                expected=expected,
            )
            if classes is None and not dataset.is_whole:
                warn_about_classes(dataset, stacklevel=3)
            return dataset
        if name == "digits":
            dataset = _load_digits()
        elif name == "custom":
            dataset = load_custom(data_dir, expected)
        else:
            dataset = _load_published(name, data_dir)
        return dataset if classes is None else dataset.with_classes(classes)
    except OSError as error:  # for example a folder without read permission
        raise DataError(f"the data set {name} cannot be read: {error}") from error


def _reject_options_of_files(name: str, **given: object) -> None:
    """Check that no option of files is given for another data set.

    Raises:
        ValueError: one is given.
    """
    for argument, value in given.items():
        if value not in (None, "auto"):
            raise ValueError(f"{option(argument)} is for npz:FILE and csv:FILE, not for {name}")


def _checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return names of classes as a tuple.

    Raises:
        TypeError: they are no sequence of strings.
    """
    require_type("classes", classes, Sequence, "a sequence of names")
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise TypeError(f"classes must be a sequence of names, got {shown(classes)}")
    return tuple(classes)


def load_mnist(
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    *,
    dataset: str = "mnist",
    data_dir: str | Path | None = None,
) -> tuple[tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]:
    """Return ((x_train, t_train), (x_test, t_test)) as new, writable arrays.

    Args:
        normalize: if true, pixels are float32 in 0.0…1.0 (byte / 255), otherwise uint8 in 0…255.
        flatten: if true, images are (N, 784), otherwise (N, 1, 28, 28); images of your own files
            may have another size.
        one_hot_label: if true, labels are float32 one-hot rows (N, 10), otherwise int64 (N,).
        dataset: see `load_dataset`.
        data_dir: see `load_dataset`.

    Raises:
        ValueError, DataError: see `load_dataset`.
    """
    normalize = as_boolean("normalize", normalize)
    flatten = as_boolean("flatten", flatten)
    one_hot_label = as_boolean("one_hot_label", one_hot_label)
    dataset = dataset_name(dataset)
    if is_file(dataset):
        raise ValueError(f"load_mnist reads sets of images, got {dataset}; use load_dataset")
    data = load_dataset(dataset, data_dir=data_dir)

    def images(x: NDArray[np.uint8]) -> NDArray[Any]:
        shape = (len(x), -1) if flatten else (len(x), 1, *x.shape[1:])
        pixels = np.divide(x, np.float32(255), dtype=np.float32) if normalize else x.copy()
        return pixels.reshape(shape)

    def labels(t: NDArray[np.uint8]) -> NDArray[Any]:
        return (
            np.eye(len(data.class_names), dtype=np.float32)[t]
            if one_hot_label
            else t.astype(np.int64)
        )

    return (
        (images(data.x_train), labels(data.t_train)),
        (images(data.x_test), labels(data.t_test)),
    )


def _load_published(name: str, data_dir: str | Path | None) -> Dataset:
    from mnist_accel.data.sources.fetch import fetch_files  # slow to import

    files, source = fetch_files(PUBLISHED_SETS[name], data_dir=data_dir)
    x_train, t_train, x_test, t_test = (parse_idx(files[file], name=file) for file in FILE_NAMES)
    return Dataset(name, x_train, t_train, x_test, t_test, class_names(name), source)


def _load_digits() -> Dataset:
    from mnist_accel.data.digits import read_digits

    (x_train, t_train), (x_test, t_test) = read_digits()
    for array in (x_train, t_train, x_test, t_test):
        array.setflags(write=False)
    source = "this package (the digits of scikit-learn)"
    return Dataset("digits", x_train, t_train, x_test, t_test, DIGIT_NAMES, source)
