"""Read the weights of older programs: a pickled dict (`.pkl`) or a `.npy` file with a dict.

Both contain arrays W1…Wn and b1…bn. Some programs store weights (in, out) with biases (out,),
others weights (out, in) with biases (out, 1). The shapes of the biases distinguish the two.
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
    """Return the weights in a `.pkl` or `.npy` file, without executing code from it.

    Returns:
        float32 arrays W1, b1, …, Wn, bn in this order: weights (in, out), biases (out,).

    Raises:
        DataError: the file cannot be read, contains anything else than such a dict, or the shapes
            of consecutive layers do not match.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if data.startswith(npy_format.MAGIC_PREFIX):
        data = _npy_payload(data, name=str(path))
    content = load_pickle(data, name=str(path))
    try:
        return _to_state_dict(content)
    except ValueError as error:
        raise DataError(f"{path} has no usable weights: {error}") from error


def _npy_payload(data: bytes, *, name: str) -> bytes:
    """Return the pickle after the header of a `.npy` file with an object array."""
    file = io.BytesIO(data)
    try:
        version = npy_format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = npy_format.read_array_header_1_0(file)
        else:
            shape, _, dtype = npy_format.read_array_header_2_0(file)
    except Exception as error:  # NumPy parses the header as Python code, which may raise any error
        reason = one_line(error)
        raise DataError(f"{name} is not a well-formed .npy file: {reason}") from error
    if dtype != np.dtype(object) or shape != ():
        raise DataError(
            f"{name} has an array of dtype {dtype} and shape {shape}, expected one object, the "
            "dict of weights"
        )
    return file.read()


def _to_state_dict(content: Any) -> dict[str, NDArray[np.float32]]:
    """Return the weights in layer order, weights as (in, out) and biases as (out,).

    Raises:
        ValueError: a key, a dtype or a shape is wrong.
    """
    count = _count_layers(content)
    numbers = range(1, count + 1)
    weights = [_to_array(content, f"W{number}", ndim=(2,)) for number in numbers]
    biases = [_to_array(content, f"b{number}", ndim=(1, 2)) for number in numbers]

    if any(bias.ndim == 2 and bias.shape[0] > 1 for bias in biases):
        form = "(out, 1)"  # columns, for W @ x + b with weights (out, in)
        consistent = all(bias.ndim == 2 and bias.shape[1] == 1 for bias in biases)
        weights = [weight.T for weight in weights]
    else:
        form = "(out,)"
        consistent = all(bias.ndim == 1 or bias.shape[0] == 1 for bias in biases)
    if not consistent:
        shapes = ", ".join(str(bias.shape) for bias in biases)
        raise ValueError(f"biases have shapes {shapes}, expected the form {form} for all")

    state: dict[str, NDArray[np.float32]] = {}
    inputs = weights[0].shape[0]
    for number, weight, bias in zip(numbers, weights, biases, strict=True):
        expected = (inputs, bias.size)
        if weight.shape != expected:
            raise ValueError(
                f"W{number} maps {weight.shape[0]} to {weight.shape[1]} values, expected "
                f"{expected[0]} to {expected[1]} to match the previous layer and b{number}"
            )
        state[f"W{number}"] = np.ascontiguousarray(weight)
        state[f"b{number}"] = np.ascontiguousarray(bias.reshape(-1))
        inputs = bias.size
    return state


def _count_layers(content: Any) -> int:
    """Return the number of layers, after checking the keys of the dict."""
    if not isinstance(content, dict) or not content:
        raise ValueError(f"found {type(content).__name__}, expected a dict with W1, b1, …")
    count = sum(re.fullmatch(r"W\d+", str(key)) is not None for key in content)
    expected = {f"{letter}{number}" for letter in "Wb" for number in range(1, count + 1)}
    unknown = [repr(key) for key in content if key not in expected]
    if unknown:
        raise ValueError(f"found key {unknown[0]}, expected only W1, b1, W2, b2, …")
    missing = sorted(expected - content.keys())
    if missing:
        raise ValueError(f"{missing[0]} is missing: each layer needs W and b")
    return count


def _to_array(content: dict[str, Any], key: str, *, ndim: tuple[int, ...]) -> NDArray[np.float32]:
    """Return one array in float32, after checking its dtype, dimensions and values."""
    array = content[key]
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{key} is {kind}, expected an array of real numbers")
    if array.ndim not in ndim or array.size == 0:
        form = "(in, out) or (out, in)" if ndim == (2,) else "(out,) or (out, 1)"
        raise ValueError(f"{key} has shape {array.shape}, expected {form}")
    with np.errstate(over="ignore"):  # overflow is reported below
        converted = array.astype(np.float32)
    if not np.isfinite(converted).all():
        raise ValueError(f"{key} has values that are not finite in float32")
    return converted
