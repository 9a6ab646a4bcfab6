"""Load data sets by name.

`load_dataset` returns uint8 images, or what a file contains. `load_mnist` also normalizes, flattens
and one-hot encodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import Aliases, Shape, as_boolean, as_number, require_type, resolve_name, shown
from mnist_accel.data.batches import split_indices
from mnist_accel.data.csv_file import read_csv
from mnist_accel.data.emnist import emnist_classes, emnist_set, first_label, has_labels
from mnist_accel.data.idx import parse_idx
from mnist_accel.data.npz_file import read_npz
from mnist_accel.data.raw import KINDS, Kind, RawData, as_kind, choose_kind, encode_labels
from mnist_accel.data.sources.digests import FILE_NAMES, PUBLISHED_SETS
from mnist_accel.data.sources.folders import ENVIRONMENT_VARIABLE, read_own_files, user_path
from mnist_accel.data.sources.idx_names import prefix_of
from mnist_accel.errors import DataError
from mnist_accel.util.text import count

DATASETS = ("mnist", "fashion-mnist", "digits", "custom")
FILE_FORMATS = ("npz", "csv")  # a file is named with its format: "csv:FILE"
KIND_NAMES = ("auto", *KINDS)
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
    except ValueError as error:
        raise ValueError(f"{error}, npz:FILE, csv:FILE") from None


@dataclass(frozen=True)
class DataForm:
    """What a network must know of a data set.

    Attributes:
        shape: shape of one example: (F,), (H, W) or (C, H, W).
        classes: number of classes.
        kind: "pixels" for images that are scaled to 0…1, "features" for other numbers.
    """

    shape: Shape = (28, 28)
    classes: int = 10
    kind: Kind = "pixels"

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of an image that can be drawn; None for other examples."""
        is_image = self.kind == "pixels" and len(self.shape) == 2
        return (self.shape[0], self.shape[1]) if is_image else None

    def __str__(self) -> str:
        if self.image_size is not None:
            return f"images of {self.shape[0]}×{self.shape[1]}"
        return f"{'×'.join(map(str, self.shape))} {self.kind}"


@dataclass(frozen=True)
class Dataset:
    """Training and test examples with their labels.

    Attributes:
        name: one of `DATASETS`, or the name of a file.
        x_train: training images, uint8 (N, 28, 28), read-only. 0 is background, 255 is full ink.
            Files of the user may contain images of another size, or float32 in 0…1, or features,
            float32 (N, F).
        t_train: training labels, integers (N,) from 0, read-only.
        x_test: test images, in the same format.
        t_test: test labels, in the same format.
        class_names: names of the labels 0, 1, ….
        source: origin of the data, for messages.
        kind: "pixels" or "features".
    """

    name: str
    x_train: NDArray[Any]
    t_train: NDArray[Any]
    x_test: NDArray[Any]
    t_test: NDArray[Any]
    class_names: tuple[str, ...]
    source: str
    kind: Kind = "pixels"

    @property
    def form(self) -> DataForm:
        """What a network must know of the data set."""
        return DataForm(self.x_train.shape[1:], len(self.class_names), self.kind)

    def with_classes(self, names: Sequence[str]) -> "Dataset":
        """Return the data set with the labels of a network whose classes have these names.

        Raises:
            DataError: the data set has another class.
        """
        if tuple(names) == self.class_names:
            return self
        unknown = [name for name in self.class_names if name not in names]
        if unknown:
            raise DataError(
                f"{self.source} has the class {shown(unknown[0])}, but the network has only "
                f"{', '.join(names)[:200]}"
            )
        numbers = np.array([list(names).index(name) for name in self.class_names])
        t_train, t_test = numbers[self.t_train], numbers[self.t_test]
        return replace(self, t_train=t_train, t_test=t_test, class_names=tuple(names))


def load_dataset(
    name: str = "mnist",
    data_dir: str | Path | None = None,
    *,
    label_column: str | None = None,
    test_split: float | None = None,
    kind: str = "auto",
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
            The choice is random and the same each time.
        kind: whether a file contains "pixels" or "features"; "auto" decides by `choose_kind`.

    Raises:
        ValueError: `name` is unknown, or an argument is missing or does not apply to it.
        DataError: the data are missing or corrupt, or cannot be read.
    """
    name = dataset_name(name)
    kind = resolve_name("kind", kind, KIND_NAMES)
    if data_dir is not None:
        require_type("data_dir", data_dir, str | PathLike, "a string or a pathlib.Path")
        if name == "digits" or is_file(name):
            raise ValueError(
                f"the data set {name} accepts no folder, got data_dir (--data-dir) {data_dir}; "
                "omit data_dir"
            )
    given: dict[str, Any] = {"label_column": label_column, "test_split": test_split}
    given["kind"] = None if kind == "auto" else kind
    for option, value in given.items():
        if value is not None and not is_file(name):
            flag = "--" + option.replace("_", "-")
            raise ValueError(f"{option} ({flag}) is for npz:FILE and csv:FILE, not for {name}")
    try:
        if is_file(name):
            return _load_file(name, label_column, test_split, kind)
        if name == "digits":
            return _load_digits()
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


def _load_file(
    name: str, label_column: str | None, test_split: float | None, given_kind: str
) -> Dataset:
    """Return the data set in a `.npz` or `.csv` file."""
    file_format, _, text = name.partition(":")
    path = user_path(text)
    assert path is not None
    if file_format == "csv":
        raw = read_csv(path, label_column=label_column)
    elif label_column is not None:
        raise ValueError("label_column (--label-column) is for csv:FILE; an archive has y_train")
    else:
        raw = read_npz(path)
    labels = raw.train[1] if raw.test is None else np.concatenate([raw.train[1], raw.test[1]])
    indices, names = encode_labels(labels, name=raw.name)
    is_given = given_kind != "auto"
    kind = next((one for one in KINDS if one == given_kind), None) or choose_kind(raw.train[0])
    examples = raw.train[0] if raw.test is None else np.concatenate([raw.train[0], raw.test[0]])
    examples = as_kind(examples, kind, name=raw.name)
    train, test = _split_rows(raw, test_split)
    arrays = (examples[train], indices[train], examples[test], indices[test])
    for array in arrays:
        array.setflags(write=False)
    reason = "as given" if is_given else "chosen by dtype and values; --kind sets it"
    return Dataset(path.name, *arrays, names, f"{path}, read as {kind} ({reason})", kind)


def _split_rows(raw: RawData, fraction: float | None) -> tuple[Any, Any]:
    """Return the rows of the training and of the test set, of both together.

    Raises:
        ValueError: the file has a test set and a fraction is given, or it has none and no fraction
            is given.
    """
    rows = len(raw.train[1])
    if raw.test is not None:
        if fraction is not None:
            raise ValueError(f"{raw.name} contains a test set; omit test_split (--test-split)")
        return slice(0, rows), slice(rows, None)
    if fraction is None:
        raise ValueError(
            f"{raw.name} contains no test set; hold out a part of it, such as a fifth with "
            "test_split=0.2 (--test-split 0.2)"
        )
    return split_indices(rows, fraction=as_number("test_split", fraction), seed=0)


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
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"{names[FILE_NAMES[2]]} has images of shape {x_test.shape[1:]}, but those of "
            f"{names[FILE_NAMES[0]]} have {x_train.shape[1:]}; expected equal sizes"
        )
    emnist = emnist_set(prefix_of(Path(names[FILE_NAMES[0]]).name))
    both = np.concatenate([t_train, t_test])
    if emnist is not None and not has_labels(emnist, both.min(), both.max()):
        emnist = None  # files of another set with this prefix
    if emnist is not None:  # the files of EMNIST contain transposed images
        x_train, x_test = (x.transpose(0, 2, 1).copy() for x in (x_train, x_test))
        source += f", EMNIST {emnist}, images transposed upright"
    t_train, t_test, classes = _idx_classes(t_train, t_test, emnist, source)
    for array in (x_train, t_train, x_test, t_test):
        array.setflags(write=False)
    return Dataset("custom", x_train, t_train, x_test, t_test, classes, source)


def _idx_classes(
    t_train: NDArray[Any], t_test: NDArray[Any], emnist: str | None, source: str
) -> tuple[NDArray[Any], NDArray[Any], tuple[str, ...]]:
    """Return the labels of IDX files as class indices, and the names of the classes.

    Labels up to 9 are those of ten classes, as in MNIST, even if some of them do not occur.
    """
    if emnist is not None:
        names, first = emnist_classes(emnist), first_label(emnist)
        return t_train - first, t_test - first, names
    both = np.concatenate([t_train, t_test])
    if both.max() < len(DIGIT_NAMES):
        return t_train, t_test, DIGIT_NAMES
    indices, names = encode_labels(both, name=source)
    return indices[: len(t_train)], indices[len(t_train) :], names


def _check_pair(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], images_name: str, labels_name: str
) -> None:
    """Check that images are (N, H, W), and labels are (N,).

    Raises:
        DataError: a shape is wrong. The message contains the name of the file.
    """
    if images.ndim != 3 or len(images) == 0:
        raise DataError(f"{images_name} has shape {images.shape}, expected (N, H, W) with N > 0")
    if labels.ndim != 1:
        raise DataError(f"{labels_name} has shape {labels.shape}, expected (N,)")
    if len(images) != len(labels):
        raise DataError(
            f"{labels_name} has {count(len(labels), 'label')} for the "
            f"{count(len(images), 'image')} of {images_name}, expected one label per image"
        )
