"""Convert images and features to rows and labels to class indices, and check them."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import shown
from mnist_accel.util.values import first_value


def as_rows(images: NDArray[Any], *, input_shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Return images as rows of pixels. Shape and dtype are checked; `require_range` checks values.

    Args:
        images: uint8 in 0…255, float in 0…1 or bool, with shape (N, pixels),
            (N, channels, height, width) or, for one channel, (N, height, width).
        input_shape: input shape of the network, (pixels,) or (channels, height, width).
        dtype: name of the dtype to which float images are converted.

    Returns:
        (N, pixels), uint8 or `dtype`.

    Raises:
        ValueError: the shape is wrong.
        TypeError: the pixels are neither uint8 nor float nor bool.
    """
    shapes = image_shapes(input_shape)
    if (  # fast: the checks below take as long as half of the prediction of an image
        type(images) is np.ndarray
        and images.shape[1:] == shapes[0]
        and (images.dtype.char == "B" or images.dtype == dtype)
        and images.flags.c_contiguous
    ):
        return images
    images = _as_array("images", images)
    _require_shape("images", images, shapes)
    if images.dtype.kind == "b":  # black and white
        images = images.astype(dtype)
    kind = images.dtype.char
    if kind != "B" and images.dtype.kind != "f":
        raise TypeError(
            f"images must be uint8 (0…255), float (0…1) or bool, got {images.dtype}; convert them "
            "with astype(numpy.uint8) if they are 0…255, with astype(numpy.float32) if they are 0…1"
        )
    if images.ndim != 2:
        images = images.reshape(len(images), math.prod(input_shape))
    if images.flags.c_contiguous and (kind == "B" or images.dtype == dtype):
        return images
    with np.errstate(over="ignore"):  # the result is infinity, which `require_range` rejects
        return np.ascontiguousarray(images, dtype=None if kind == "B" else dtype)


def as_feature_rows(features: NDArray[Any], *, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Return features as rows. Shape and dtype are checked; `require_finite` checks values.

    Args:
        features: integers, booleans or floating-point numbers (N, *shape), or in another of
            `feature_shapes`.
        shape: shape of the features of one example.
        dtype: name of the dtype of the result.

    Returns:
        (N, features) of `dtype`, in C order.

    Raises:
        ValueError: the shape is wrong.
        TypeError: the features are not real numbers.
    """
    features = _as_array("features", features)
    _require_shape("features", features, feature_shapes(shape))
    return _real_numbers("features", features, (len(features), math.prod(shape)), dtype)


def require_finite(name: str, rows: NDArray[Any], given: NDArray[Any]) -> None:
    """Check that all numbers are finite.

    Args:
        name: what they are, for the error message.
        rows: the numbers in the dtype of the network.
        given: the numbers as the user gave them, which the error message quotes.

    Raises:
        ValueError: a number is NaN or infinite in the dtype of `rows`.
    """
    finite = np.isfinite(rows)
    if not finite.all():
        value = first_value(np.asarray(given).reshape(rows.shape), ~finite)
        raise ValueError(
            f"{name} must be finite numbers in {rows.dtype}, got {value}; "
            "replace NaN and infinite values, or scale the numbers"
        )


def require_range(rows: NDArray[Any], images: NDArray[Any]) -> None:
    """Check that floating-point pixels are in 0…1.

    Args:
        rows: the result of `as_rows`.
        images: the images given to `as_rows`. The error message quotes a pixel of them, because
            the conversion to another dtype may have rounded it.

    Raises:
        ValueError: a pixel is below 0, above 1 or NaN.
    """
    if rows.dtype.kind != "f" or not rows.size:
        return
    smallest, largest = rows.min(), rows.max()
    if smallest >= 0 and largest <= 1:  # false if a pixel is NaN
        return
    given = np.asarray(images).reshape(rows.shape)
    value = f"{first_value(given, ~((rows >= 0) & (rows <= 1)))} of (images, pixels)"
    if not (np.isfinite(smallest) and np.isfinite(largest)):
        remedy = "replace NaN and infinite values"
    elif smallest >= 0 and 1.5 <= largest <= 255:
        value += f"; the largest pixel is {given.max()!s}"
        remedy = "divide by 255, or pass uint8"
    else:
        remedy = "scale the images to 0…1, or clip them with numpy.clip(images, 0, 1)"
    raise ValueError(f"float images must be in 0…1, got {value}; {remedy}")


def as_labels(labels: NDArray[Any], *, classes: int) -> NDArray[np.int64]:
    """Return labels as class indices, after checking shape, dtype and range.

    Args:
        labels: integers (N,) or one-hot rows (N, classes).
        classes: number of classes.

    Returns:
        (N,), int64.

    Raises:
        ValueError: the shape is wrong, an index is not in 0…classes − 1, or a row is not one-hot.
        TypeError: one-dimensional labels are not integers.
    """
    labels = _as_array("labels", labels, of_words="numpy.unique(…, return_inverse=True)[1]")
    if labels.ndim == 2 and labels.shape[1] == classes:
        _require_one_hot(labels)
        return np.asarray(labels.argmax(axis=1), np.int64)
    if labels.ndim != 1:
        remedy = "; flatten them with labels.ravel()" if labels.shape[1:] == (1,) else ""
        raise ValueError(
            f"labels must have shape (N,) or (N, {classes}), got {labels.shape}{remedy}"
        )
    if labels.size and not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(
            f"labels must be integers or one-hot rows, got {labels.dtype}; convert class numbers "
            "with labels.astype(int)"
        )
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        value = first_value(labels, (labels < 0) | (labels >= classes))
        begin_at_1 = labels.min() == 1 and labels.max() == classes
        remedy = "; subtract 1, as classes are numbered from 0" if begin_at_1 else ""
        raise ValueError(f"labels must be in 0…{classes - 1}, got {value}{remedy}")
    return labels.astype(np.int64)


def as_targets(targets: NDArray[Any], *, outputs: int, dtype: str) -> NDArray[Any]:
    """Return the targets of a regression, after checking shape, dtype and values.

    Args:
        targets: real numbers (N, outputs), or (N,) for one output.
        outputs: number of outputs of the network.
        dtype: name of the dtype of the result.

    Returns:
        (N, outputs) of `dtype`, in C order.

    Raises:
        ValueError: the shape is wrong, or a number is not finite.
        TypeError: the targets are not real numbers.
    """
    targets = _as_array("targets", targets)
    expected = "(N,) or (N, 1)" if outputs == 1 else f"(N, {outputs})"
    if targets.shape[1:] != (outputs,) and not (outputs == 1 and targets.ndim == 1):
        raise ValueError(f"targets must have shape {expected}, got {targets.shape}")
    rows = _real_numbers("targets", targets, (len(targets), outputs), dtype)
    require_finite("targets", rows, targets)
    return rows


def as_weights(weights: NDArray[Any], *, examples: int, dtype: str) -> NDArray[Any]:
    """Return the weights of examples (N,) as an array of `dtype`, after checking them.

    Raises:
        ValueError: their number is wrong, one is negative or not finite, or all are 0.
        TypeError: they are not real numbers.
    """
    weights = _as_array("sample_weight", weights)
    if weights.shape != (examples,):
        raise ValueError(f"sample_weight must have shape ({examples},), got {weights.shape}")
    checked = _real_numbers("sample_weight", weights, weights.shape, dtype)
    require_finite("sample_weight", checked, weights)
    if (checked < 0).any():
        raise ValueError(
            f"sample_weight must not be negative, got {first_value(weights, checked < 0)}"
        )
    if not checked.any():
        raise ValueError("sample_weight must contain a number above 0, got only 0")
    return checked


def _real_numbers(
    name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: str
) -> NDArray[Any]:
    """Return an array in C order with another shape and dtype.

    A number beyond the range of the dtype becomes infinity, which `require_finite` rejects.

    Raises:
        TypeError: the elements are not real numbers.
    """
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be real numbers, got {array.dtype}")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array.reshape(shape), dtype=dtype)


def _as_array(name: str, value: Any, *, of_words: str = "") -> NDArray[Any]:
    """Return an array-like argument as an array of numbers.

    Args:
        name: name of the argument.
        value: its value.
        of_words: code that turns words into such numbers, for the message.

    Raises:
        TypeError: it is something else, such as None, a string, or lists of unequal lengths.
        ValueError: values are masked.
    """
    require_unmasked(name, value)
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unequal lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "biufc" or not array.ndim:
        remedy = ""
        if of_words and array.size and all(isinstance(word, str) for word in array.flat):
            remedy = f"; number words with {of_words}"
        elif array.size and all(isinstance(item, list | np.ndarray) for item in array.flat):
            remedy = "; build one array of arrays of equal shapes with numpy.stack"
        raise TypeError(f"{name} must be an array of numbers, got {shown(value)}{remedy}")
    return array


def require_unmasked(name: str, value: Any) -> None:
    """Check that no value of an array is masked.

    Raises:
        ValueError: a value is masked.
    """
    if np.ma.is_masked(value):
        raise ValueError(
            f"{name} has {int(value.mask.sum()):,} masked values, which have no number; "
            "replace them with filled(0), or remove their rows"
        )


def _require_one_hot(labels: NDArray[Any]) -> None:
    """Check that each row has exactly one 1 and is 0 elsewhere."""
    expected = "one-hot labels must have exactly one 1 per row and 0 elsewhere"
    invalid = ~((labels == 0) | (labels == 1))
    if invalid.any():
        raise ValueError(f"{expected}, got {first_value(labels, invalid)}")
    sums = labels.sum(axis=1)
    if (sums != 1).any():
        row = int((sums != 1).argmax())
        raise ValueError(f"{expected}, got {int(sums[row])} ones in row {row}")


def feature_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the shapes of one example that `as_feature_rows` accepts."""
    return [shape] if len(shape) == 1 else image_shapes(shape)


def _require_shape(name: str, array: NDArray[Any], shapes: list[tuple[int, ...]]) -> None:
    if array.shape[1:] not in shapes:
        expected = " or ".join(f"(N, {', '.join(map(str, shape))})" for shape in shapes)
        remedy = _remedy_of_shape(name, array.shape, shapes)
        raise ValueError(f"{name} must have shape {expected}, got {array.shape}{remedy}")


def _remedy_of_shape(name: str, shape: tuple[int, ...], shapes: list[tuple[int, ...]]) -> str:
    """Return how to change an array of a common wrong shape; "" for all others."""
    if shape in shapes:
        return f"; give a single one as {name}[None]"
    if len(shape) == 4 and (shape[3], *shape[1:3]) in shapes:
        return f"; move the channels with numpy.moveaxis({name}, 3, 1)"
    return ""


@lru_cache
def image_shapes(input_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the shapes of one image that `as_rows` accepts."""
    pixels = math.prod(input_shape)
    side = math.isqrt(pixels)
    if input_shape == (side * side,):  # flat input: square images are flattened
        return [(pixels,), (side, side), (1, side, side)]
    if input_shape[0] == 1:  # the dimension of a single channel may be omitted
        return [(pixels,), input_shape[1:], input_shape]
    return [(pixels,), input_shape] if len(input_shape) > 1 else [(pixels,)]
