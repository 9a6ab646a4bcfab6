"""The IDX file format of the MNIST files: a big-endian header, then raw bytes.

A header is the magic number 0x00000800 + ndim, then `ndim` sizes of four bytes each. Only the two
forms that MNIST uses are read: one dimension (labels) and three (images), both of unsigned bytes.
Format: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section
"File formats".
"""

import gzip
import io
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mnist_accel.errors import DataError

LABELS_MAGIC = 0x00000801
IMAGES_MAGIC = 0x00000803

# Twenty times the largest MNIST file. A header that claims more is corrupt or hostile, and a
# compressed file is never unpacked beyond what its header claims.
MAX_BYTES = 2**30

_GZIP_MAGIC = b"\x1f\x8b"


def parse_idx(data: bytes, *, name: str) -> NDArray[np.uint8]:
    """Return the array that the IDX file `data` holds, as a read-only view of its bytes.

    Args:
        data: the whole decompressed file.
        name: what error messages call the file.

    Returns:
        uint8 labels (N,) or images (N, rows, columns).

    Raises:
        DataError: the magic number, the dimensions or the length is not that of such a file.
    """
    shape, offset = _parse_header(data, name=name)
    expected = offset + math.prod(shape)
    if len(data) != expected:
        fault = "truncated" if len(data) < expected else "oversized"
        raise DataError(
            f"{name} is {fault}: found {len(data)} bytes, expected {expected} "
            f"for its dimensions {_times(shape)}; get the file anew"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=offset).reshape(shape)


def read_idx(path: str | Path) -> NDArray[np.uint8]:
    """Return the array of an IDX file, plain or compressed with gzip.

    Returns:
        uint8 labels (N,) or images (N, rows, columns), read-only.

    Raises:
        DataError: the file cannot be opened, or is not a well-formed IDX file.
    """
    return parse_idx(read_idx_bytes(path), name=str(path))


def read_idx_bytes(path: str | Path) -> bytes:
    """Return the decompressed bytes of an IDX file, plain or compressed with gzip.

    Raises:
        DataError: the file cannot be opened, is corrupt, or does not begin with an IDX header.
    """
    try:
        with Path(path).open("rb") as file:
            return unpack_idx(file, name=str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def unpack_idx(file: BinaryIO, *, name: str) -> bytes:
    """Return the decompressed bytes of an open IDX file, plain or compressed with gzip.

    The contents tell the two apart, not the name: browsers unpack a `.gz` and keep its name.
    At most one byte more than the header claims is read, so the caller sees that a file is
    oversized but a small file that unpacks to gigabytes costs nothing.

    Raises:
        DataError: the gzip stream is corrupt, or the file does not begin with an IDX header.
    """
    compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    file.seek(0)
    if not compressed:
        return _read_claimed(file, name=name)
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            return _read_claimed(unpacked, name=name)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name} is a corrupt gzip file ({error}); get the file anew") from error


def format_idx(array: NDArray[np.uint8]) -> bytes:
    """Return the IDX file that holds uint8 labels (N,) or images (N, rows, columns).

    Raises:
        TypeError: the array is not uint8.
        ValueError: the array has neither one dimension nor three.
    """
    if array.dtype != np.uint8:
        raise TypeError(f"an IDX file holds uint8, got {array.dtype}")
    if array.ndim not in (1, 3):
        raise ValueError(f"labels have 1 dimension and images 3, got shape {array.shape}")
    magic = LABELS_MAGIC if array.ndim == 1 else IMAGES_MAGIC
    return struct.pack(f">I{array.ndim}I", magic, *array.shape) + array.tobytes()


def _read_claimed(file: BinaryIO | gzip.GzipFile, *, name: str) -> bytes:
    """Return at most one byte more than the header of `file` claims."""
    header = file.read(16)
    shape, offset = _parse_header(header, name=name)
    file.seek(0)
    whole = io.BytesIO()
    left = offset + math.prod(shape) + 1
    # Piece by piece: a short file with a large claim must not allocate what it claims.
    while left and (piece := file.read(min(left, 2**22))):
        whole.write(piece)
        left -= len(piece)
    return whole.getvalue()


def _parse_header(data: bytes, *, name: str) -> tuple[tuple[int, ...], int]:
    """Return the dimensions that an IDX header claims, and its length in bytes."""
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
            f"{name} is truncated: found {len(data)} bytes, expected a header of {offset}"
        )
    shape = struct.unpack_from(f">{ndim}I", data, 4)
    if offset + math.prod(shape) > MAX_BYTES or 0 in shape[1:]:
        raise DataError(
            f"{name} claims absurd dimensions: found {_times(shape)}, expected images of at least "
            f"one pixel and at most {MAX_BYTES} bytes in all; get the file anew"
        )
    return shape, offset


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(str(size) for size in shape)
