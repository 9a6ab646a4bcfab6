"""Load data sets by name.

`load_dataset` returns uint8 images. `load_mnist` also normalizes, flattens and one-hot encodes.
"""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import Aliases, as_boolean, require_type, resolve_name
from mnist_accel.data.idx import parse_idx
from mnist_accel.data.sources.digests import FILE_NAMES, PUBLISHED_SETS
from mnist_accel.data.sources.folders import ENVIRONMENT_VARIABLE, read_own_files, user_path
from mnist_accel.errors import DataError
from mnist_accel.util.text import count

DATASETS = ("mnist", "fashion-mnist", "digits", "custom")
DATASET_ALIASES: Aliases = {"fashion": ("fashion-mnist",), "fmnist": ("fashion-mnist",)}

DIGIT_NAMES = tuple("0123456789")
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
    """Return the names of the labels 0…9 of a data set."""
    return _FASHION_NAMES if dataset == "fashion-mnist" else DIGIT_NAMES


@dataclass(frozen=True)
class Dataset:
    """Training and test images of ten classes with their labels.

    Attributes:
        name: one of `DATASETS`.
        x_train: training images, uint8 (N, 28, 28), read-only. 0 is background, 255 is full ink.
        t_train: training labels, uint8 (N,), read-only.
        x_test: test images, in the same format.
        t_test: test labels, in the same format.
        class_names: names of the labels 0…9.
        source: origin of the data, for messages.
    """

    name: str
    x_train: NDArray[np.uint8]
    t_train: NDArray[np.uint8]
    x_test: NDArray[np.uint8]
    t_test: NDArray[np.uint8]
    class_names: tuple[str, ...]
    source: str


def load_dataset(name: str = "mnist", data_dir: str | Path | None = None) -> Dataset:
    """Return a data set. A published set that is not on this machine is downloaded and cached.

    Args:
        name: "mnist", "fashion-mnist" or "FashionMNIST", "digits" (the 1797 digits of scikit-learn,
            included in the package), or "custom" (the user's own four IDX files).
        data_dir: the folder with the four IDX files (plain or `.gz`), its parent folder, one of the
            files, or Keras' `mnist.npz`. The default is the value of the environment variable
            `MNIST_ACCEL_DATA`. If either is given, no other source is tried, and a missing or
            corrupt file is an error. "digits" accepts no folder.

    Raises:
        ValueError: `name` is unknown, `data_dir` is given for "digits", or no folder is given for
            "custom".
        DataError: the data are missing or corrupt, or cannot be read.
    """
    name = resolve_name("data set", name, DATASETS, DATASET_ALIASES)
    if data_dir is not None:
        require_type("data_dir", data_dir, str | PathLike, "a string or a pathlib.Path")
    try:
        if name == "digits":
            return _load_digits(data_dir)
        if name == "custom":
            return _load_custom(data_dir)
        return _load_published(name, data_dir)
    except OSError as error:  # for example a folder without read permission
        raise DataError(f"the data set {name} cannot be read: {error}") from error


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
        flatten: if true, images are (N, 784), otherwise (N, 1, 28, 28).
        one_hot_label: if true, labels are float32 one-hot rows (N, 10), otherwise int64 (N,).
        dataset: see `load_dataset`.
        data_dir: see `load_dataset`.

    Raises:
        ValueError, DataError: see `load_dataset`.
    """
    normalize = as_boolean("normalize", normalize)
    flatten = as_boolean("flatten", flatten)
    one_hot_label = as_boolean("one_hot_label", one_hot_label)
    data = load_dataset(dataset, data_dir=data_dir)

    def images(x: NDArray[np.uint8]) -> NDArray[Any]:
        shape = (len(x), 784) if flatten else (len(x), 1, 28, 28)
        pixels = np.divide(x, np.float32(255), dtype=np.float32) if normalize else x.copy()
        return pixels.reshape(shape)

    def labels(t: NDArray[np.uint8]) -> NDArray[Any]:
        return np.eye(10, dtype=np.float32)[t] if one_hot_label else t.astype(np.int64)

    return (
        (images(data.x_train), labels(data.t_train)),
        (images(data.x_test), labels(data.t_test)),
    )


def _load_published(name: str, data_dir: str | Path | None) -> Dataset:
    from mnist_accel.data.sources.fetch import fetch_files  # slow to import

    files, source = fetch_files(PUBLISHED_SETS[name], data_dir=data_dir)
    x_train, t_train, x_test, t_test = (parse_idx(files[file], name=file) for file in FILE_NAMES)
    return Dataset(name, x_train, t_train, x_test, t_test, class_names(name), source)


def _load_digits(data_dir: str | Path | None) -> Dataset:
    if data_dir is not None:
        raise ValueError(
            "the data set digits accepts no folder, "
            f"got data_dir (--data-dir) {data_dir}; omit data_dir"
        )
    from mnist_accel.data.digits import read_digits

    (x_train, t_train), (x_test, t_test) = read_digits()
    for array in (x_train, t_train, x_test, t_test):
        array.setflags(write=False)
    source = "this package (the digits of scikit-learn)"
    return Dataset("digits", x_train, t_train, x_test, t_test, DIGIT_NAMES, source)


def _load_custom(data_dir: str | Path | None) -> Dataset:
    path = user_path(data_dir)
    if path is None:
        raise ValueError(
            "the data set custom needs a folder with your four IDX files; give it with data_dir "
            f"(--data-dir) or {ENVIRONMENT_VARIABLE}"
        )
    files, names, source = read_own_files(path)
    arrays = {name: parse_idx(data, name=names[name]) for name, data in files.items()}
    for images, labels in (FILE_NAMES[:2], FILE_NAMES[2:]):
        _check_pair(arrays[images], arrays[labels], names[images], names[labels])
    x_train, t_train, x_test, t_test = (arrays[name] for name in FILE_NAMES)
    return Dataset("custom", x_train, t_train, x_test, t_test, DIGIT_NAMES, source)


def _check_pair(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], images_name: str, labels_name: str
) -> None:
    """Check that images are (N, 28, 28), and labels are (N,) in 0…9.

    Raises:
        DataError: a shape or a label is wrong. The message contains the name of the file.
    """
    if images.ndim != 3 or images.shape[1:] != (28, 28) or len(images) == 0:
        raise DataError(f"{images_name} has shape {images.shape}, expected (N, 28, 28) with N > 0")
    if labels.ndim != 1:
        raise DataError(f"{labels_name} has shape {labels.shape}, expected (N,)")
    if len(images) != len(labels):
        raise DataError(
            f"{labels_name} has {count(len(labels), 'label')} for the "
            f"{count(len(images), 'image')} of {images_name}, expected one label per image"
        )
    if labels.max() > 9:
        raise DataError(
            f"{labels_name} contains label {labels.max()}, expected 0 to 9; only data sets of at "
            "most ten classes can be read"
        )
