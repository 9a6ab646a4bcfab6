"""The user's own data: `.npz` archives, tables, the four IDX files of any set, and arrays."""

import warnings
from collections.abc import Sequence
from hashlib import file_digest
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from backends import as_number, option
from mnist_accel.data.arrays import as_labels
from mnist_accel.data.batches import split_indices
from mnist_accel.data.csv_file import read_csv
from mnist_accel.data.dataset import DIGIT_NAMES, Dataset
from mnist_accel.data.emnist import emnist_classes, emnist_set, first_label, has_labels
from mnist_accel.data.identity import FileIdentity, digest_of_parts
from mnist_accel.data.idx import parse_idx
from mnist_accel.data.npz_file import read_npz
from mnist_accel.data.raw import (
    Kind,
    RawData,
    as_kind,
    check_examples,
    choose_kind,
    encode_labels,
    find_classes,
)
from mnist_accel.data.sources.digests import FILE_NAMES
from mnist_accel.data.sources.folders import ENVIRONMENT_VARIABLE, read_own_files, user_path
from mnist_accel.data.sources.idx_names import prefix_of
from mnist_accel.errors import DataError, DataWarning, file_errors
from mnist_accel.util.input_files import open_regular
from mnist_accel.util.text import count, excerpt

_MAX_NAMES = 5  # classes that a warning lists

Examples = tuple[NDArray[Any], NDArray[Any]]


def load_file(
    name: str,
    *,
    label_column: str | None,
    test_split: float | None,
    kind: str,
    classes: Sequence[str] | None,
    expected: FileIdentity | None,
) -> Dataset:
    """Return the data set in a file, "npz:FILE" or "csv:FILE"; arguments as `load_dataset`."""
    path = file_path(name)
    if name.startswith("csv:"):
        raw = read_csv(path, label_column=label_column)
    elif label_column is not None:
        raise ValueError(f"{option('label_column')} is for csv:FILE; an archive has y_train")
    else:
        raw = read_npz(path)
    if expected is not None and raw.identity is not None:
        expected.require_unchanged(raw.identity, raw.name)
    if classes is None:
        _require_training_examples(raw)
    elif raw.test is None and test_split is None:
        test_split = 1
    train, test = _split_rows(raw, test_split)
    return _dataset(raw, path.name, train, test, kind=kind, classes=classes)


def file_path(name: str) -> Path:
    """Return the path of the file in the name of a data set, "npz:FILE" or "csv:FILE"."""
    path = user_path(name.partition(":")[2])
    assert path is not None
    return path


def is_unchanged(name: str, identity: FileIdentity) -> bool:
    """Return whether a file, "npz:FILE" or "csv:FILE", has the content of an identity.

    Raises:
        DataError: the file cannot be read.
    """
    path = file_path(name)
    with file_errors(f"read {path}"), open_regular(path) as file:
        return file_digest(file, "sha256").hexdigest() == identity.sha256


def dataset_of_arrays(train: Examples, test: Examples) -> Dataset:
    """Return arrays of the user as a data set; pixels or features are told apart as in files.

    Args:
        train: examples (N, features), (N, H, W) or (N, C, H, W), and labels, which are integers
            or strings (N,), or one-hot rows (N, classes).
        test: the same for the test set.

    Raises:
        ValueError: a shape, a dtype or a value is not accepted.

    Warns:
        DataWarning: a class has no training example, or a single example.
    """
    train, test = ((examples, _flat_labels(labels)) for examples, labels in (train, test))
    try:
        for name, pair in (("training", train), ("test", test)):
            check_examples(*pair, name=f"the {name} set")
        raw = RawData("data", train, test)
        dataset = _dataset(raw, "custom", *_split_rows(raw, None), kind="auto", classes=None)
    except DataError as error:
        raise ValueError(str(error)) from None
    warn_about_classes(dataset, stacklevel=5)
    return dataset


def _flat_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels (N,): class indices for one-hot rows, strings for objects that are strings."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        return as_labels(labels, classes=labels.shape[1])
    is_text = labels.dtype == object and all(isinstance(label, str) for label in labels.flat)
    return labels.astype(str) if is_text else labels


def _dataset(
    raw: RawData, name: str, train: Any, test: Any, *, kind: str, classes: Sequence[str] | None
) -> Dataset:
    """Return a data set whose sets are these rows of the training and test examples together."""
    labels = raw.train[1] if raw.test is None else np.concatenate([raw.train[1], raw.test[1]])
    if classes is None:
        indices, names = find_classes(labels, name=raw.name)
    else:
        indices, names = encode_labels(labels, classes, name=raw.name), tuple(classes)
    examples = raw.train[0] if raw.test is None else np.concatenate([raw.train[0], raw.test[0]])
    is_given = kind != "auto"
    chosen = cast(Kind, kind) if is_given else choose_kind(examples)
    examples = as_kind(examples, chosen, name=raw.name)
    arrays = (examples[train], indices[train], examples[test], indices[test])
    for array in arrays:
        array.setflags(write=False)
    reason = "as given" if is_given else f"chosen by dtype and values; {option('kind')} sets it"
    source = f"{raw.name}, read as {chosen} ({reason})"
    return Dataset(name, *arrays, names, source, chosen, raw.identity)


def _require_training_examples(raw: RawData) -> None:
    """Check that a file contains more than a test set.

    Raises:
        DataError: it does not.
    """
    if not len(raw.train[1]):
        raise DataError(f"{raw.name} contains only a test set; add training examples")


def _split_rows(raw: RawData, fraction: float | None) -> tuple[Any, Any]:
    """Return the rows of the training and of the test set, of both together.

    Raises:
        ValueError: the file has a test set and a fraction is given, or it has none and no fraction
            is given.
    """
    rows = len(raw.train[1])
    if raw.test is not None:
        if fraction is not None:
            raise ValueError(f"{raw.name} contains a test set; omit {option('test_split')}")
        return slice(0, rows), slice(rows, None)
    if fraction is None:
        raise ValueError(
            f"{raw.name} contains no test set; hold out a part of it, such as a fifth with "
            f"{option('test_split', 0.2)}"
        )
    fraction = as_number(option("test_split"), fraction)
    if fraction == 1:
        return slice(0, 0), slice(0, rows)
    return split_indices(rows, fraction=fraction, seed=0)


def load_custom(data_dir: str | Path | None, expected: FileIdentity | None) -> Dataset:
    """Return the data set in four IDX files; arguments as `load_dataset`."""
    path = user_path(data_dir)
    if path is None:
        raise ValueError(
            "the data set custom needs a folder with your four IDX files; give it with "
            f"{option('data_dir')} or {ENVIRONMENT_VARIABLE}"
        )
    files, names, source = read_own_files(path)
    identity = FileIdentity(digest_of_parts([files[name] for name in FILE_NAMES]))
    if expected is not None:
        expected.require_unchanged(identity, source)
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
    return Dataset("custom", x_train, t_train, x_test, t_test, classes, source, identity=identity)


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
    indices, names = find_classes(both, name=source)
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


def warn_about_classes(data: Dataset, *, stacklevel: int) -> None:
    """Warn about classes that no network can learn from the data, or whose labels may be mistakes.

    Neither is an error, because rare classes are legitimate, and a random split may put all of
    their examples into the test set.
    """
    classes = len(data.class_names)
    train, test = (np.bincount(t, minlength=classes) for t in (data.t_train, data.t_test))
    found = {
        "is only in the test set, so a network cannot learn it": (train == 0) & (test > 0),
        "has a single example": train + test == 1,
    }
    for problem, is_affected in found.items():
        names = [data.class_names[number] for number in np.flatnonzero(is_affected)]
        if names:
            listed = ", ".join(repr(excerpt(name, max_chars=40)) for name in names[:_MAX_NAMES])
            more = f" and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else ""
            warnings.warn(
                f"each of these classes in {data.name} {problem}: {listed}{more}; check the labels",
                DataWarning,
                stacklevel=stacklevel,
            )
