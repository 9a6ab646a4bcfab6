"""The data sets by name, as uint8 arrays, and `load_mnist` in the form that tutorials expect."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_accel.data.idx import parse_idx, read_idx
from mnist_accel.data.sources.digests import FILE_NAMES, PUBLISHED_SETS
from mnist_accel.data.sources.folders import ENVIRONMENT_VARIABLE, find_idx_file, user_folder
from mnist_accel.errors import DataError

DATASETS = ("mnist", "fashion-mnist", "digits", "custom")

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


@dataclass(frozen=True)
class Dataset:
    """Images of ten classes with their labels, to train on and to test with.

    Attributes:
        name: one of `DATASETS`.
        x_train: uint8 images (N, 28, 28), read-only, 0 the background and 255 full ink.
        t_train: uint8 labels (N,), read-only.
        x_test: likewise, for testing.
        t_test: likewise, for testing.
        class_names: what the labels 0…9 stand for.
        source: in words, where the data came from.
    """

    name: str
    x_train: NDArray[np.uint8]
    t_train: NDArray[np.uint8]
    x_test: NDArray[np.uint8]
    t_test: NDArray[np.uint8]
    class_names: tuple[str, ...]
    source: str


def load_dataset(name: str = "mnist", *, data_dir: str | Path | None = None) -> Dataset:
    """Return a data set, fetched and cached if this is the first time.

    Args:
        name: "mnist"; "fashion-mnist"; "digits", scikit-learn's 1797 digits, which need no
            network; or "custom", four IDX files of the user's own.
        data_dir: a folder with the four IDX files, plain or `.gz`, or with such a folder called
            like the data set; by default that of the environment variable `MNIST_ACCEL_DATA`.
            Where a folder is named, no other source is tried: a missing or corrupt file in it is
            an error.

    Raises:
        ValueError: `name` is none of these, or `data_dir` is given for "digits", or nothing for
            "custom".
        DataError: the data cannot be had, or are corrupt.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}, expected one of {', '.join(DATASETS)}")
    try:
        if name == "digits":
            return _load_digits(data_dir)
        if name == "custom":
            return _load_custom(data_dir)
        return _load_published(name, data_dir)
    except OSError as error:  # a folder that may not be entered, a path that is too long
        raise DataError(f"{name} cannot be read: {error}") from error


def load_mnist(
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    *,
    dataset: str = "mnist",
    data_dir: str | Path | None = None,
) -> tuple[tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]:
    """Return ((x_train, t_train), (x_test, t_test)), in arrays of the caller's own.

    Args:
        normalize: float32 pixels in 0.0…1.0, byte / 255, if true; else uint8 0…255.
        flatten: images (N, 784) if true, else (N, 1, 28, 28).
        one_hot_label: float32 one-hot rows (N, 10) if true, else int64 labels (N,).
        dataset: see `load_dataset`.
        data_dir: see `load_dataset`.

    Raises:
        ValueError, DataError: as `load_dataset`.
    """
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
    from mnist_accel.data.sources.fetch import fetch_files  # only here is a network needed

    files, source = fetch_files(PUBLISHED_SETS[name], data_dir=data_dir)
    x_train, t_train, x_test, t_test = (parse_idx(files[file], name=file) for file in FILE_NAMES)
    names = _FASHION_NAMES if name == "fashion-mnist" else DIGIT_NAMES
    return Dataset(name, x_train, t_train, x_test, t_test, names, source)


def _load_digits(data_dir: str | Path | None) -> Dataset:
    if data_dir is not None:
        raise ValueError(f"digits come with the program: leave out the folder {data_dir}")
    from mnist_accel.data.digits import read_digits

    (x_train, t_train), (x_test, t_test) = read_digits()
    for array in (x_train, t_train, x_test, t_test):
        array.setflags(write=False)
    source = "bundled, from scikit-learn"
    return Dataset("digits", x_train, t_train, x_test, t_test, DIGIT_NAMES, source)


def _load_custom(data_dir: str | Path | None) -> Dataset:
    folder = user_folder("custom", data_dir)
    if folder is None:
        raise ValueError(
            "custom is a data set of your own: name the folder of its four IDX files with "
            f"data_dir (--data-dir) or {ENVIRONMENT_VARIABLE}"
        )
    train, test = (
        _read_pair(find_idx_file(folder, images), find_idx_file(folder, labels))
        for images, labels in (FILE_NAMES[:2], FILE_NAMES[2:])
    )
    return Dataset("custom", *train, *test, DIGIT_NAMES, f"folder {folder}")


def _read_pair(images_path: Path, labels_path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images and labels that belong together."""
    images = read_idx(images_path)
    labels = read_idx(labels_path)
    if images.ndim != 3 or images.shape[1:] != (28, 28) or len(images) == 0:
        raise DataError(f"{images_path} has the shape {images.shape}, expected (N, 28, 28), N > 0")
    if labels.ndim != 1:
        raise DataError(f"{labels_path} has the shape {labels.shape}, expected (N,)")
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path} has {len(labels)} labels for the {len(images)} images of {images_path},"
            " expected one label an image"
        )
    if labels.max() > 9:
        raise DataError(f"{labels_path} has the label {labels.max()}, expected 0 to 9")
    return images, labels
