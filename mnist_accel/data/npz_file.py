"""Reads a data set from a `.npz` archive of NumPy, without unpickling anything."""

from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from mnist_accel.data.identity import FileIdentity
from mnist_accel.data.raw import RawData, check_examples
from mnist_accel.errors import DataError, file_errors
from mnist_accel.util.input_files import open_archive, read_member, read_regular
from mnist_accel.util.npy import MAGIC, parse_npy

MAX_BYTES = 2**30  # of the file, and of each unpacked array
_TEST_SET = ("x_test", "y_test")
_FORMS = (("x_train", "y_train", *_TEST_SET), ("x_train", "y_train"), ("x", "y"), _TEST_SET)
_NAMES = {name for form in _FORMS for name in form}
_REMEDY = "the arrays must be x_train, y_train, x_test and y_test, or without a test set x and y"


def read_npz(path: Path) -> RawData:
    """Return the arrays x_train, y_train, x_test and y_test, or x and y, of an archive.

    An archive with only x_test and y_test is accepted, too, to evaluate a network on it.

    Raises:
        DataError: the file cannot be read, an array is missing, or its dtype, shape or values are
            not accepted.
    """
    with file_errors(f"read {path}"):
        data = read_regular(path, max_bytes=MAX_BYTES)
    try:
        archive = open_archive(data)
    except ValueError as error:
        raise DataError(f"{path} is not a .npz archive: {_problem(data, error)}") from error
    form = _form([name.removesuffix(".npy") for name in archive.namelist()], path)
    arrays = [_read_array(archive, name, path) for name in form]
    pairs = []
    for number in range(0, len(form), 2):
        x, y = arrays[number], arrays[number + 1]
        check_examples(x, y, name=f"{path} ({form[number]}, {form[number + 1]})")
        pairs.append((x, y))
    identity = FileIdentity(sha256(data).hexdigest())
    if form == _TEST_SET:
        x, y = pairs[0]
        pairs.insert(0, (x[:0], y[:0]))
    return RawData(str(path), pairs[0], pairs[1] if len(pairs) == 2 else None, identity)


def _problem(data: bytes, error: ValueError) -> str:
    """Return why a file is not an archive, and how to repair it if it contains one array."""
    if not data.startswith(MAGIC):
        return str(error)
    return (
        "it contains one array, as numpy.save writes it; store examples and labels together with "
        "numpy.savez(file, x=…, y=…)"
    )


def _form(names: list[str], path: Path) -> tuple[str, ...]:
    """Return the names of the arrays to read.

    Raises:
        DataError: an array is missing, or it is not clear which arrays to read.
    """
    known = [name for name in names if name in _NAMES]
    form = next((form for form in _FORMS if sorted(known) == sorted(form)), None)
    if form is None:
        found = ", ".join(sorted(names)[:10]) or "none"
        raise DataError(f"{path} contains the arrays {found}; {_REMEDY}")
    return form


def _read_array(archive: ZipFile, name: str, path: Path) -> NDArray[Any]:
    where = f"{name} in {path}"
    try:
        data = read_member(archive, f"{name}.npy", max_bytes=MAX_BYTES + 1)
    except ValueError as error:
        raise DataError(f"{where} cannot be read: {error}") from error
    if len(data) > MAX_BYTES:
        raise DataError(f"{where} has more than the maximum of {MAX_BYTES:,} bytes")
    file = parse_npy(data, name=where)
    if file.dtype.hasobject:
        raise DataError(
            f"{where} has dtype {str(file.dtype)[:40]}, which is stored as a pickle and not read; "
            "store numbers, or strings with astype(str)"
        )
    array = file.array()
    if array.dtype.kind != "S":
        return array
    try:
        return np.char.decode(array, "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} contains text that is not UTF-8; store strings") from error
