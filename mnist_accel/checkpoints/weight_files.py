"""Reads weights from files of other programs: pickles, `.npy` files and `.npz` archives.

The format is detected from the content, not from the suffix. No code from a file is executed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_accel.checkpoints.keras_weights import HOW_TO_SAVE, from_keras
from mnist_accel.checkpoints.tensor_file import is_tensor_file
from mnist_accel.errors import DataError, file_errors
from mnist_accel.util import npy
from mnist_accel.util.input_files import (
    ZIP_END,
    ZIP_MAGIC,
    open_archive,
    open_regular,
    read_member,
    read_regular,
)
from mnist_accel.util.restricted_pickle import load_pickle
from mnist_accel.util.values import first_value

_SUFFIXES = (".pkl", ".pickle", ".npy", ".npz")
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# Pickles of protocol 2 and later start with the first of these, older ones with the others.
_PICKLE_STARTS = (b"\x80", b"(", b"}", b"c")
_MAX_BYTES = 2**29  # maximum size of a file, and of the unpacked content of an archive
_MAX_NUMBERS = 2**25  # in all arrays; several names in a pickle may refer to the same array
_KEY = re.compile(r"[Wb][1-9][0-9]{0,2}")
_TORCH_NAME = re.compile(r"(.+)\.(weight|bias)")
_KERAS_NAME = re.compile(r"(.+)/(kernel|bias)(?::0)?")  # Keras 2 appends ":0"
_LETTERS = {"weight": "W", "kernel": "W", "bias": "b"}
_ACCEPTED = (
    "W1, b1, W2, b2, …, PyTorch's names NAME.weight, NAME.bias, … or Keras' names NAME/kernel, "
    "NAME/bias, …"
)


@dataclass(frozen=True)
class WeightFile:
    """The content of a file with weights.

    Attributes:
        arrays: float32 arrays by name, in the order W1, b1, W2, …; a layer may have no b.
        is_npy: whether the file is a `.npy` file.
    """

    arrays: dict[str, NDArray[np.float32]]
    is_npy: bool

    @property
    def layers(self) -> int:
        """Number of layers with weights."""
        return sum(name[0] == "W" for name in self.arrays)


def is_weight_file(path: Path) -> bool:
    """Return whether a file is a pickle, a `.npy` file or a `.npz` archive.

    The suffix decides if the content is unreadable or of an unknown format. The result for a
    safetensors file is False, whatever its suffix.
    """
    try:
        if not path.is_file():
            return path.suffix.lower() in _SUFFIXES and not path.is_dir()
        with open_regular(path) as file:
            start = file.read(9)
        if is_tensor_file(path):
            return False
    except OSError:
        return path.suffix.lower() in _SUFFIXES
    known = (npy.MAGIC, ZIP_MAGIC, _HDF5_MAGIC, *_PICKLE_STARTS)
    return start.startswith(known) or path.suffix.lower() in _SUFFIXES


def read_weight_file(path: str | Path) -> WeightFile:
    """Return the weights in a file.

    Raises:
        DataError: the file cannot be read, its content is not a dict of arrays W1, b1, …, or the
            values are not real numbers that are finite in float32.
    """
    path = Path(path)
    with file_errors(f"read {path}"):
        data = read_regular(path, max_bytes=_MAX_BYTES)
    try:
        return WeightFile(_to_arrays(_parse(data, name=str(path))), data.startswith(npy.MAGIC))
    except ValueError as error:
        raise DataError(f"{path} has no usable weights: {error}") from error


def _parse(data: bytes, *, name: str) -> object:
    """Return the content of a file: a dict, if the file contains weights."""
    if data.startswith(ZIP_MAGIC):
        return _parse_archive(data, name=name)
    if data.startswith(_HDF5_MAGIC):
        raise DataError(
            f"{name} is an HDF5 file, which cannot be read; if Keras wrote it, {HOW_TO_SAVE}"
        )
    if data.startswith(ZIP_END):  # an archive without members has nothing else
        return {}
    if not data.startswith(npy.MAGIC):
        return load_pickle(data, name=name)
    file = npy.parse_npy(data, name=name)
    if not file.dtype.hasobject or file.shape != ():
        raise DataError(
            f"{name} has an array of dtype {str(file.dtype)[:60]} and shape "
            f"{str(file.shape)[:60]}, expected one object: the dict of weights"
        )
    return load_pickle(file.payload, name=name)


def _parse_archive(data: bytes, *, name: str) -> object:
    """Return the arrays in a `.npz` archive, or the dict that is its only member."""
    content: dict[str, object] = {}
    remaining = _MAX_BYTES
    try:
        archive = open_archive(data)
        if "model.weights.h5" in archive.namelist():
            raise DataError(f"{name} is a model of Keras, which cannot be read; {HOW_TO_SAVE}")
        for member in archive.namelist():
            array = read_member(archive, member, max_bytes=remaining + 1)
            remaining -= len(array)
            if remaining < 0:
                raise DataError(f"{name} unpacks to more than the maximum of {_MAX_BYTES:,} bytes")
            parsed = npy.parse_npy(array, name=f"{ascii(member)[:60]} in {name}")
            if parsed.dtype.hasobject and len(archive.namelist()) == 1:
                return _parse(array, name=name)
            content[member.removesuffix(".npy")] = parsed.array()
    except ValueError as error:
        raise DataError(f"{name} is not a well-formed .npz archive: {error}") from error
    return content


def _to_arrays(content: object) -> dict[str, NDArray[np.float32]]:
    """Check the keys and values of a dict, and return its arrays in the order W1, b1, W2, ….

    Raises:
        ValueError: `content` is not a dict of valid arrays, or a key is unknown or missing.
    """
    if not isinstance(content, dict) or not content:
        found = "an empty dict" if content == {} else type(content).__name__
        raise ValueError(f"found {found}, expected a dict with {_ACCEPTED}")
    is_keras = any(_KERAS_NAME.fullmatch(str(key)) for key in content)
    content = _with_our_names(content)
    count = sum(str(key).startswith("W") and bool(_KEY.fullmatch(str(key))) for key in content)
    names = [f"{letter}{number}" for number in range(1, count + 1) for letter in "Wb"]
    missing = [name for name in names if name[0] == "W" and name not in content]
    if missing:
        raise ValueError(f"{missing[0]} is missing: each layer needs W, its weights")
    unknown = [ascii(str(key)[:40]) for key in content if key not in names]
    if unknown:
        raise ValueError(
            f"found key {unknown[0]}, expected only {_ACCEPTED}; rename the arrays of the first "
            "layer to W1 and b1, and so on, and remove other entries"
        )
    numbers = sum(array.size for array in content.values() if isinstance(array, np.ndarray))
    if numbers > _MAX_NUMBERS:
        raise ValueError(f"found {numbers:,} numbers, expected at most {_MAX_NUMBERS:,}")
    arrays = {name: _to_array(content, name) for name in names if name in content}
    return from_keras(arrays) if is_keras else arrays


def _with_our_names(content: dict[str, Any]) -> dict[str, Any]:
    """Return a dict in which the names of PyTorch or Keras are replaced by W1, b1, ….

    Both list the layers in the order in which the network defines them.
    """
    layers: dict[str, int] = {}
    result: dict[str, Any] = {}
    for name, value in content.items():
        ours = ""
        if match := _TORCH_NAME.fullmatch(str(name)) or _KERAS_NAME.fullmatch(str(name)):
            layer, kind = match.groups()
            ours = f"{_LETTERS[kind]}{layers.setdefault(layer, len(layers) + 1)}"
        result[name if ours in ("", *content) else ours] = value
    return result


def _to_array(content: Mapping[str, Any], key: str) -> NDArray[np.float32]:
    """Check the dtype, shape and values of an array, and return it in float32."""
    array = content[key]
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{key} is {kind}, expected an array of real numbers")
    if key[0] == "W":
        is_valid, form = array.ndim in (2, 4), "(in, out), (out, in) or (filters, channels, k, k)"
    else:
        is_valid, form = array.ndim in (1, 2), "(out,) or (out, 1)"
    if not is_valid:
        raise ValueError(f"{key} has shape {array.shape}, expected {form}")
    if array.size == 0:
        raise ValueError(f"{key} has shape {array.shape} and thus no elements")
    with np.errstate(over="ignore"):  # the check below reports overflow
        converted = array.astype(np.float32)
    finite = np.isfinite(converted)
    if not finite.all():
        raise ValueError(f"{key} contains {first_value(array, ~finite)}, not finite in float32")
    return converted
