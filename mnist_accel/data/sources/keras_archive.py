"""Keras' archive `mnist.npz`, which holds the same bytes as the four IDX files."""

import struct
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnist_accel.data.idx import IMAGES_MAGIC, LABELS_MAGIC, MAX_BYTES, format_idx
from mnist_accel.data.sources.digests import FILE_NAMES, PublishedSet, VerifiedFiles, verify
from mnist_accel.errors import DataError, file_errors
from mnist_accel.util.input_files import (
    ZIP_MAGIC,
    open_archive,
    open_regular,
    read_member,
    read_regular,
)
from mnist_accel.util.npy import parse_npy

ARCHIVE_NAME = "mnist.npz"
_MEMBERS = dict(zip(FILE_NAMES, ("x_train", "y_train", "x_test", "y_test"), strict=True))
_MAX_NPY_HEADER = 1024


def is_archive(path: Path) -> bool:
    """Return whether `path` is a file in the zip format."""
    try:
        with open_regular(path) as file:
            return file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    except OSError:
        return False


def read_published_archive(path: Path, published: PublishedSet) -> VerifiedFiles:
    """Return the IDX files rebuilt from the archive.

    The data in a `.npy` member equal those in the IDX file; only the headers differ. The `.npy`
    header is not parsed, because the digest detects any mismatch.

    Raises:
        DataError: the archive is corrupt, or its data differ from the published ones.
    """
    files = {}
    archive = _open(path)
    for name, (size, _) in published.files.items():
        header = _idx_header(name, size)
        data_size = size - len(header)
        data = _read_array(archive, _MEMBERS[name], path, max_bytes=data_size + _MAX_NPY_HEADER)
        files[name] = header + data[-data_size:]
    return verify(published, files, origin=str(path))


def read_archive(path: Path) -> dict[str, bytes]:
    """Return the content of four IDX files by name, from an archive with the user's own images.

    Raises:
        DataError: the archive is corrupt, or an array has a wrong dtype, shape or label.
    """
    files = {}
    archive = _open(path)
    for name, member in _MEMBERS.items():
        data = _read_array(archive, member, path, max_bytes=MAX_BYTES)
        array = parse_npy(data, name=f"{member} in {path}").array()
        files[name] = format_idx(_as_bytes(array, name=f"{member} in {path}"))
    return files


def _as_bytes(array: NDArray[np.generic], *, name: str) -> NDArray[np.uint8]:
    """Return images or labels as uint8; labels may have any integer dtype."""
    if array.dtype == np.uint8 and array.ndim in (1, 3):
        return array.view(np.uint8)
    if array.ndim == 1 and array.dtype.kind in "iu" and array.size:
        smallest, largest = int(array.min()), int(array.max())
        if smallest < 0 or largest > 255:
            raise DataError(
                f"{name} contains label {smallest if smallest < 0 else largest}, expected 0 to 255"
            )
        return array.astype(np.uint8)
    raise DataError(
        f"{name} has dtype {array.dtype} and shape {array.shape}, expected uint8 images (N, H, W)"
        " or integer labels (N,)"
    )


def _open(path: Path) -> zipfile.ZipFile:
    try:
        with file_errors(f"read {path}"):
            return open_archive(read_regular(path, max_bytes=MAX_BYTES))
    except ValueError as error:
        raise DataError(f"{path} is not Keras' archive of mnist: {error}") from error


def _read_array(archive: zipfile.ZipFile, member: str, path: Path, *, max_bytes: int) -> bytes:
    """Return at most `max_bytes` of the `.npy` file in a member."""
    try:
        return read_member(archive, f"{member}.npy", max_bytes=max_bytes)
    except ValueError as error:
        raise DataError(
            f"{path} is not Keras' archive of mnist: {member} cannot be read ({error})"
        ) from error


def _idx_header(name: str, size: int) -> bytes:
    """Return the header of an IDX file of `size` bytes with 28×28 images or with labels."""
    if "images" in name:
        return struct.pack(">4I", IMAGES_MAGIC, (size - 16) // 28**2, 28, 28)
    return struct.pack(">2I", LABELS_MAGIC, size - 8)
