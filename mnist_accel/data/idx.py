"""Read and write IDX, the file format of MNIST: a big-endian header, then raw bytes.

The header is the magic number 0x00000800 + ndim, followed by `ndim` sizes of four bytes each. Only
the two forms that MNIST uses are supported: unsigned bytes with one dimension (labels) or with
three (images).
Format: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section
"File formats".
"""

import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnist_accel.errors import DataError, file_errors
from mnist_accel.util.input_files import is_gzip, read_regular, unpack_gzip

LABELS_MAGIC = 0x00000801
IMAGES_MAGIC = 0x00000803

# The largest EMNIST file has 547 MB. A header that declares more is probably corrupt or hostile. A
# compressed file is never unpacked beyond the size that its header declares.
MAX_BYTES = 600_000_000

_MAX_HEADER = 16


def parse_idx(data: bytes, *, name: str) -> NDArray[np.uint8]:
    """Return the array in the IDX file `data`, as a read-only view of its bytes.

    Args:
        data: the whole decompressed file.
        name: name of the file in error messages.

    Returns:
        uint8 labels (N,) or images (N, rows, columns).

    Raises:
        DataError: the magic number, the dimensions or the length is invalid.
    """
    shape, offset = _parse_header(data, name=name)
    expected = offset + math.prod(shape)
    if len(data) != expected:
        fault = "truncated" if len(data) < expected else "oversized"
        raise DataError(
            f"{name} is {fault}: found {len(data)} bytes, expected {expected} "
            f"for its dimensions {_times(shape)}; download the file again"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=offset).reshape(shape)


def read_idx_bytes(path: str | Path) -> bytes:
    """Return the decompressed bytes of an IDX file, plain or compressed with gzip.

    Raises:
        DataError: the file cannot be opened, is corrupt, or does not begin with an IDX header.
    """
    with file_errors(f"read {path}"):
        data = read_regular(path, max_bytes=MAX_BYTES)
    return unpack_idx(data, name=str(path))


def unpack_idx(data: bytes, *, name: str) -> bytes:
    """Return the decompressed bytes of an IDX file, plain or compressed with gzip.

    Compression is detected by content, not by name, because browsers may unpack a `.gz` file and
    keep its name. A file is unpacked to at most one byte more than its header declares. The extra
    byte shows that it is too long; the limit makes a small file that unpacks to gigabytes harmless.

    Raises:
        DataError: the gzip stream is corrupt, or the file does not begin with an IDX header.
    """
    if not is_gzip(data):
        _parse_header(data, name=name)
        return data
    shape, offset = _parse_header(unpack_gzip(data, max_bytes=_MAX_HEADER, name=name), name=name)
    return unpack_gzip(data, max_bytes=offset + math.prod(shape) + 1, name=name)


def format_idx(array: NDArray[np.uint8]) -> bytes:
    """Return the content of an IDX file with uint8 labels (N,) or images (N, rows, columns).

    Raises:
        TypeError: the array is not uint8.
        ValueError: the array does not have one or three dimensions.
    """
    if array.dtype != np.uint8:
        raise TypeError(f"array must have dtype uint8, got {array.dtype}")
    if array.ndim not in (1, 3):
        raise ValueError(
            f"array must have 1 dimension (labels) or 3 (images), got shape {array.shape}"
        )
    magic = LABELS_MAGIC if array.ndim == 1 else IMAGES_MAGIC
    return struct.pack(f">I{array.ndim}I", magic, *array.shape) + array.tobytes()


def _parse_header(data: bytes, *, name: str) -> tuple[tuple[int, ...], int]:
    """Return the dimensions that an IDX header declares, and the header's length in bytes."""
    if len(data) < 4:
        raise DataError(f"{name} is truncated: found {len(data)} bytes, expected an IDX header")
    (magic,) = struct.unpack_from(">I", data)
    if magic not in (LABELS_MAGIC, IMAGES_MAGIC):
        raise DataError(
            f"{name} is not an IDX file of bytes: found magic number 0x{magic:08x}, expected "
            f"0x{LABELS_MAGIC:08x} (labels) or 0x{IMAGES_MAGIC:08x} (images)"
        )
    ndim = magic & 0xFF
    offset = 4 + 4 * ndim
    if len(data) < offset:
        raise DataError(
            f"{name} is truncated: found {len(data)} bytes, expected a header of {offset} bytes"
        )
    shape = struct.unpack_from(f">{ndim}I", data, 4)
    if 0 in shape[1:]:
        raise DataError(
            f"{name} declares invalid dimensions: found {_times(shape)}, expected images of at "
            "least one pixel; download the file again"
        )
    if offset + math.prod(shape) > MAX_BYTES:
        raise DataError(
            f"{name} declares {_times(shape)} bytes, more than the maximum of {MAX_BYTES:,}; "
            "use fewer images, or download the file again if it is smaller"
        )
    return shape, offset


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(str(size) for size in shape)
