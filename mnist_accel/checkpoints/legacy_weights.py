"""Import weights that older programs left as a pickled dict (`.pkl`) or a `.npy` of a dict.

Both hold arrays W1…Wn and b1…bn. Some programs store a weight as (in, out) with a bias (out,),
others as (out, in) with a bias (out, 1); the shape of the biases tells which.
"""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from mnist_accel.errors import DataError
from mnist_accel.util.restricted_pickle import load_pickle
from mnist_accel.util.text import one_line


def read_legacy_weights(path: str | Path) -> dict[str, NDArray[np.float32]]:
    """Return the weights in a `.pkl` or `.npy` file, without running any code it may carry.

    Returns:
        float32 arrays W1, b1, …, Wn, bn in this order: weights (in, out), biases (out,).

    Raises:
        DataError: the file cannot be read, holds anything but such a dict, or its layers do not
            fit each other.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if data.startswith(npy_format.MAGIC_PREFIX):
        data = _payload_of_npy(data, name=str(path))
    content = load_pickle(data, name=str(path))
    try:
        return _to_state_dict(content)
    except ValueError as error:
        raise DataError(f"{path} holds no weights that can be used: {error}") from error


def _payload_of_npy(data: bytes, *, name: str) -> bytes:
    """Return the pickle that follows the header of a `.npy` object array."""
    file = io.BytesIO(data)
    try:
        version = npy_format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = npy_format.read_array_header_1_0(file)
        else:
            shape, _, dtype = npy_format.read_array_header_2_0(file)
    except Exception as error:  # NumPy parses the header as Python, which can raise anything
        reason = one_line(error)
        raise DataError(f"{name} is not a well-formed .npy file: {reason}") from error
    if dtype != np.dtype(object) or shape != ():
        raise DataError(
            f"{name} holds an array of dtype {dtype} and shape {shape}, expected one object, the "
            "dict of weights"
        )
    return file.read()


def _to_state_dict(content: Any) -> dict[str, NDArray[np.float32]]:
    """Return the weights in layer order and one layout; a ValueError says what does not fit."""
    count = _count_layers(content)
    numbers = range(1, count + 1)
    weights = [_to_array(content, f"W{number}", ndim=(2,)) for number in numbers]
    biases = [_to_array(content, f"b{number}", ndim=(1, 2)) for number in numbers]

    if any(bias.ndim == 2 and bias.shape[0] > 1 for bias in biases):
        form = "(out, 1)"  # column vectors, added to W @ x: weights are (out, in)
        fits = all(bias.ndim == 2 and bias.shape[1] == 1 for bias in biases)
        weights = [weight.T for weight in weights]
    else:
        form = "(out,)"
        fits = all(bias.ndim == 1 or bias.shape[0] == 1 for bias in biases)
    if not fits:
        shapes = ", ".join(str(bias.shape) for bias in biases)
        raise ValueError(f"biases have the shapes {shapes}, expected all of the form {form}")

    state: dict[str, NDArray[np.float32]] = {}
    inputs = weights[0].shape[0]
    for number, weight, bias in zip(numbers, weights, biases, strict=True):
        expected = (inputs, bias.size)
        if weight.shape != expected:
            raise ValueError(
                f"W{number} maps {weight.shape[0]} to {weight.shape[1]} values, expected "
                f"{expected[0]} to {expected[1]} after the layer before it and with b{number}"
            )
        state[f"W{number}"] = np.ascontiguousarray(weight)
        state[f"b{number}"] = np.ascontiguousarray(bias.reshape(-1))
        inputs = bias.size
    return state


def _count_layers(content: Any) -> int:
    if not isinstance(content, dict) or not content:
        raise ValueError(f"found {type(content).__name__}, expected a dict with W1, b1, …")
    count = sum(re.fullmatch(r"W\d+", str(key)) is not None for key in content)
    expected = {f"{letter}{number}" for letter in "Wb" for number in range(1, count + 1)}
    unknown = [repr(key) for key in content if key not in expected]
    if unknown:
        raise ValueError(f"found the key {unknown[0]}, expected only W1, b1, W2, b2, …")
    missing = sorted(expected - content.keys())
    if missing:
        raise ValueError(f"{missing[0]} is missing: every layer needs its W and its b")
    return count


def _to_array(content: dict[str, Any], key: str, *, ndim: tuple[int, ...]) -> NDArray[np.float32]:
    array = content[key]
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{key} is {kind}, expected an array of real numbers")
    if array.ndim not in ndim or array.size == 0:
        form = "(in, out) or (out, in)" if ndim == (2,) else "(out,) or (out, 1)"
        raise ValueError(f"{key} has the shape {array.shape}, expected {form}")
    with np.errstate(over="ignore"):  # a number beyond float32 is reported below
        converted = array.astype(np.float32)
    if not np.isfinite(converted).all():
        raise ValueError(f"{key} holds values that are not finite in float32")
    return converted
