"""Safetensors files with a JSON header and a digest of their content.

The arrays are stored by name. The safetensors metadata, which are strings, hold the format version,
each item of the header as JSON, and a SHA-256 over metadata and arrays.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from backends import shown
from mnist_accel.errors import CheckpointError, DataError
from mnist_accel.util.files import write_atomically
from mnist_accel.util.input_files import check_size, open_regular
from mnist_accel.util.schema import decode_json
from mnist_accel.util.text import excerpt

Tensors: TypeAlias = dict[str, NDArray[Any]]

FORMAT = "mnist_accel/1"
_FORMAT_KEY = "mnist_accel.format"
# Release 0.1.0 wrote this key. Loaders of other libraries expect the name of a library in it.
_OLD_FORMAT_KEY = "format"
_MAX_BYTES = 2**32
_MAX_HEADER = 2**20


def is_tensor_file(path: Path) -> bool:
    """Return whether a file starts like a safetensors file, whatever its suffix.

    Raises:
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        start = file.read(9)
    header_size = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and header_size <= path.stat().st_size - 8


def write_tensors(file: Path, tensors: Tensors, header: Mapping[str, Any]) -> None:
    """Write arrays and header to a file, completely or not at all.

    Raises:
        CheckpointError: the file cannot be written, or would be too large to be read. An existing
            file is unchanged.
    """
    size = sum(array.nbytes for array in tensors.values())
    if size + _MAX_HEADER > _MAX_BYTES:
        raise CheckpointError(
            f"cannot write {file}: its arrays have {size:,} bytes, more than the maximum of "
            f"{_MAX_BYTES - _MAX_HEADER:,}"
        )
    metadata = {_FORMAT_KEY: FORMAT, **{name: json.dumps(value) for name, value in header.items()}}
    metadata["digest"] = _digest(tensors, metadata)
    try:
        write_atomically(file, _with_sorted_metadata(safetensors.numpy.save(tensors, metadata)))
    except OSError as error:
        raise CheckpointError(
            f"cannot write {file}: {error.strerror or error}; an existing file there is unchanged"
        ) from error


def read_tensors(file: Path) -> tuple[Tensors, dict[str, Any]]:
    """Return the arrays and the header of a file, after checking its format and its digest.

    Raises:
        CheckpointError: the file is missing, corrupt, or has another format.
    """
    try:
        _check(file)
        with safetensors.safe_open(file, framework="numpy") as content:
            metadata = content.metadata() or {}
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} does not exist") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error
    except Exception as error:  # safetensors' own error, and NumPy's errors for invalid headers
        raise CheckpointError(
            f"{file} is not a complete safetensors file ({excerpt(error)})"
        ) from error
    found = metadata.get(_FORMAT_KEY, metadata.get(_OLD_FORMAT_KEY))
    if found != FORMAT:
        raise CheckpointError(
            f"{file} was not written by mnist_accel, or by an unsupported version (format "
            f"{shown(found)}, expected {FORMAT!r})"
        )
    if metadata.pop("digest", None) != _digest(tensors, metadata):
        raise CheckpointError(f"{file} is damaged: its content does not match its digest")
    try:
        header = {
            name: decode_json(text, object, name="its header", kind="a header")
            for name, text in metadata.items()
            if name not in (_FORMAT_KEY, _OLD_FORMAT_KEY)
        }
    except DataError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    return tensors, header


def _check(file: Path) -> None:
    """Check the size of a file and of its header, before safetensors reads them.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is too large.
        CheckpointError: the header is too large.
    """
    with open_regular(file) as content:
        check_size(content, max_bytes=_MAX_BYTES)
        size = int.from_bytes(content.read(8), "little")
    if size > _MAX_HEADER:
        raise CheckpointError(
            f"{file} is not a complete safetensors file, or its header is larger than the maximum "
            f"of {_MAX_HEADER:,} bytes"
        )


def _with_sorted_metadata(content: bytes) -> bytes:
    """Return the bytes of a safetensors file with its metadata in alphabetical order.

    The library writes them in a random order, in which equal networks would have different files.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # as the library, so that the arrays stay aligned
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _digest(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of the metadata and of names, dtypes, shapes and bytes of all arrays."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
