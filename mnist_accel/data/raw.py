"""Turns the arrays of a user's file into examples and class indices.

`RawData` is what the readers of `.npz` and `.csv` files return.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends import option, shown
from mnist_accel.data.identity import FileIdentity
from mnist_accel.errors import DataError
from mnist_accel.util.text import count, excerpt
from mnist_accel.util.values import first_value

Kind: TypeAlias = Literal["pixels", "features"]
KINDS: tuple[Kind, ...] = ("pixels", "features")
MAX_CLASSES = 1000
MAX_LABEL_CHARS = 200
_INTEGER = re.compile(r"[-+]?\d+", re.ASCII)
_DECIMAL = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|nan|[-+]?inf", re.ASCII | re.IGNORECASE)
_MIN_PIXELS = 64  # of an image that is stored as a row of a table
_MIN_WHITE = 128  # a table whose numbers are all smaller contains counts or codes, not pixels


@dataclass(frozen=True)
class RawData:
    """Examples and labels as a file contains them.

    Attributes:
        name: the file, for messages.
        train: examples (N, …) and labels (N,); N is 0 if the file contains only a test set.
        test: examples and labels of the test set; None if the file contains none.
        identity: what tells whether the file has changed; None for arrays.
    """

    name: str
    train: tuple[NDArray[Any], NDArray[Any]]
    test: tuple[NDArray[Any], NDArray[Any]] | None
    identity: FileIdentity | None = None

    def __post_init__(self) -> None:
        """Check that training and test examples have the same form."""
        if self.test is None:
            return
        train, test = self.train[0], self.test[0]
        if train.shape[1:] != test.shape[1:]:
            raise DataError(
                f"{self.name} has training examples of shape {train.shape[1:]} and test examples "
                f"of shape {test.shape[1:]}, expected equal shapes"
            )
        if (train.dtype.kind == "f") != (test.dtype.kind == "f"):  # probably scaled differently
            raise DataError(
                f"{self.name} has training examples of dtype {train.dtype} and test examples of "
                f"dtype {test.dtype}; scale and store both in the same way"
            )


def find_classes(labels: NDArray[Any], *, name: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return labels as class indices (N,), and the names of the classes in ascending order.

    Whitespace around labels is ignored. If all labels are whole numbers, also as text, they are
    classes in the order of the numbers, and "1.0" is the class 1.

    Args:
        labels: numbers or strings (N,).
        name: the file, for messages.

    Raises:
        DataError: there is only one class, or there are more than `MAX_CLASSES`; or a label is
            empty, too long, or a fraction.
    """
    values, indices = np.unique(labels, return_inverse=True)
    if len(values) > MAX_CLASSES:
        raise DataError(
            f"{name} has {len(values):,} different labels, expected at most {MAX_CLASSES:,}; give "
            "classes, not measured values"
        )
    keys = _class_keys(values.tolist(), name=name)
    classes = sorted(set(keys))
    if len(classes) < 2:
        raise DataError(
            f"{name} has only one class, {str(classes[0])!r}; a classifier needs at least two"
        )
    position = {key: number for number, key in enumerate(classes)}
    numbers = np.array([position[key] for key in keys])
    return numbers[indices.reshape(-1)].astype(np.int64), tuple(map(str, classes))


def encode_labels(labels: NDArray[Any], classes: Sequence[str], *, name: str) -> NDArray[np.int64]:
    """Return labels as indices (N,) of known classes. "1.0" is the class "1", unless it is known.

    Args:
        labels: numbers or strings (N,).
        classes: names of the classes.
        name: the file, for messages.

    Raises:
        DataError: a label is no class.
    """
    values, indices = np.unique(labels, return_inverse=True)
    position = {text: number for number, text in enumerate(classes)}
    numbers = []
    for value in values.tolist():
        text = str(value).strip()
        if text not in position and _DECIMAL.fullmatch(text) and float(text).is_integer():
            text = str(int(float(text)))
        if text not in position:
            known = excerpt(", ".join(classes), max_chars=200)
            raise DataError(f"{name} has the class {shown(text)}, but the network has only {known}")
        numbers.append(position[text])
    return np.array(numbers, np.int64)[indices.reshape(-1)]


def _class_keys(labels: Sequence[Any], *, name: str) -> list[Any]:
    """Return what identifies the class of each label: an integer or a text.

    Raises:
        DataError: see `find_classes`.
    """
    texts = [str(label).strip() for label in labels]
    for text in texts:
        if not text:
            raise DataError(f"{name} has an empty label; name the class, or remove its examples")
        if len(text) > MAX_LABEL_CHARS:
            raise DataError(
                f"{name} has a label of {len(text):,} characters, expected at most "
                f"{MAX_LABEL_CHARS}: {excerpt(text, max_chars=40)!r}"
            )
    if all(map(_INTEGER.fullmatch, texts)):
        return [int(text) for text in texts]
    if not all(map(_DECIMAL.fullmatch, texts)):
        return texts
    fraction = next((text for text in texts if not float(text).is_integer()), None)
    if fraction is not None:
        raise DataError(
            f"{name} has the label {fraction} among numbers, expected whole numbers or words as "
            "classes; name such classes, or predict measured values with the loss SquaredError"
        )
    return [int(float(text)) for text in texts]


def choose_kind(examples: NDArray[Any]) -> Kind:
    """Return whether examples (N, …) look like pixels or like features.

    They are pixels if they are uint8; or if they are images, (N, H, W) or (N, C, H, W), of whole
    numbers in 0…255 or of numbers in 0…1; or if they are a table of square images: at least 64
    columns, whose number is a square, with whole numbers in 0…255 and at least one above 127.
    """
    if examples.dtype == np.uint8:
        return "pixels"
    smallest, largest = examples.min(), examples.max()
    if smallest < 0 or largest > 255:
        return "features"
    is_whole = _is_whole(examples)
    if examples.ndim > 2:
        return "pixels" if is_whole or largest <= 1 else "features"
    is_square = _side(examples) is not None and examples.shape[1] >= _MIN_PIXELS
    return "pixels" if is_square and is_whole and largest >= _MIN_WHITE else "features"


def as_kind(examples: NDArray[Any], kind: Kind, *, name: str) -> NDArray[Any]:
    """Return examples as pixels, uint8 or float32 in 0…1, or as float32 features.

    A table of pixels whose number of columns is a square becomes square images. Pixels with one
    channel are returned as (N, H, W), features in the shape of images as (N, C, H, W). Pixels in
    0…1 may have any dtype except uint8.

    Images in the order (N, H, W, C) are refused, because their rows would be taken for channels.
    Features may have such a shape.

    Raises:
        DataError: the values are no pixels, or the last axis contains the channels.
    """
    is_image = kind == "pixels" and examples.ndim == 4
    if is_image and examples.shape[3] <= 4 < min(examples.shape[1:3]):
        raise DataError(
            f"the images in {name} have shape {examples.shape}, which looks like (N, H, W, C), "
            "expected (N, C, H, W); transpose them with x.transpose(0, 3, 1, 2)"
        )
    if kind == "pixels":
        side = _side(examples)
        if examples.ndim == 2 and side is not None:
            examples = examples.reshape(len(examples), side, side)
    if kind == "features":
        examples = examples[:, None] if examples.ndim == 3 else examples
        return np.ascontiguousarray(examples, np.float32)
    if examples.ndim == 4 and examples.shape[1] == 1:
        examples = examples[:, 0]
    if examples.dtype == np.uint8:
        return examples
    smallest, largest = examples.min(), examples.max()
    is_whole = _is_whole(examples)
    if smallest >= 0 and 1 < largest <= 255 and is_whole:
        return examples.astype(np.uint8)
    if smallest < 0 or largest > 1:
        wrong = (examples < 0) | (examples > (255 if is_whole else 1))
        raise DataError(
            f"the pixels in {name} must be whole numbers in 0…255 or numbers in 0…1, got "
            f"{first_value(examples, wrong)}; read them as features with "
            f"{option('kind', 'features')}"
        )
    return np.ascontiguousarray(examples, np.float32)


def check_examples(examples: NDArray[Any], labels: NDArray[Any], *, name: str) -> None:
    """Check that there is one label for each example, and that all numbers are finite.

    Args:
        examples: (N, …).
        labels: (N,).
        name: what both are, for messages.

    Raises:
        DataError: a dtype, a shape or a value is wrong.
    """
    if examples.dtype.kind not in "biuf":
        raise DataError(f"{name} has examples of dtype {examples.dtype}, expected numbers")
    if labels.dtype.kind not in "biufUS":
        raise DataError(
            f"{name} has labels of dtype {labels.dtype}, expected whole numbers or strings"
        )
    if labels.ndim != 1 or examples.ndim not in (2, 3, 4) or 0 in examples.shape[1:]:
        remedy = ""
        if labels.ndim == 2:
            remedy = "; number one-hot labels with argmax(axis=1)"
            if labels.shape[1] == 1:
                remedy = "; flatten the labels with ravel()"
        raise DataError(
            f"{name} has examples of shape {examples.shape} and labels of shape {labels.shape}, "
            f"expected (N, features), (N, H, W) or (N, C, H, W), and (N,){remedy}"
        )
    if len(examples) != len(labels):
        raise DataError(
            f"{name} has {count(len(examples), 'example')} and {count(len(labels), 'label')}, "
            "expected equal numbers"
        )
    if not len(examples):
        raise DataError(f"{name} contains no example")
    if examples.dtype.kind == "f":
        with np.errstate(over="ignore"):
            finite = np.isfinite(examples.astype(np.float32, copy=False))
        if not finite.all():
            raise DataError(
                f"{name} must contain finite numbers in float32, got "
                f"{first_value(examples, ~finite)}; remove or replace these values"
            )


def _is_whole(numbers: NDArray[Any]) -> bool:
    """Return whether all numbers are whole."""
    return numbers.dtype.kind != "f" or not (numbers % 1).any()


def _side(examples: NDArray[Any]) -> int | None:
    """Return the side of square images in the rows of a table; None if they are not square."""
    side = math.isqrt(examples.shape[1])
    return side if side * side == examples.shape[1] and side > 1 else None
