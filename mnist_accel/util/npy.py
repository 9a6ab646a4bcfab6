"""Reads `.npy` files from untrusted sources: the header, then exactly the bytes it declares."""

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from mnist_accel.errors import DataError
from mnist_accel.util.text import excerpt

MAGIC = npy_format.MAGIC_PREFIX
_READERS = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}
MAX_NDIM = 32
MAX_SIDE = 2**40


@dataclass(frozen=True)
class NpyFile:
    """The parts of a `.npy` file.

    Attributes:
        name: name of the file in error messages.
        dtype: dtype in the header.
        shape: shape in the header.
        fortran: whether the array is in Fortran order.
        payload: the bytes after the header.
    """

    name: str
    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]
    fortran: bool
    payload: bytes

    def array(self) -> NDArray[Any]:
        """Return the array, read-only.

        Raises:
            DataError: it contains Python objects, or the payload has another size.
        """
        size = math.prod(self.shape) * self.dtype.itemsize
        if self.dtype.hasobject or size != len(self.payload) or not self.dtype.itemsize:
            raise DataError(
                f"{self.name} has {len(self.payload)} bytes of data, expected {size} for shape "
                f"{str(self.shape)[:60]} and dtype {str(self.dtype)[:60]}"
            )
        flat = np.frombuffer(self.payload, self.dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def parse_npy(data: bytes, *, name: str) -> NpyFile:
    """Return the parts of a `.npy` file.

    Args:
        data: the whole file.
        name: name of the file in error messages.

    Raises:
        DataError: the header is not well-formed.
    """
    file = io.BytesIO(data)
    try:
        version = npy_format.read_magic(file)
        # Version 3 is rejected; NumPy writes it only for field names that are not Latin-1.
        shape, fortran, dtype = _READERS[version](file)
        if len(shape) > MAX_NDIM or not all(0 <= side < MAX_SIDE for side in shape):
            raise ValueError("shape out of range")
    except Exception as error:  # NumPy parses the header as Python code, which may raise any error
        reason = excerpt(error, max_chars=100)
        raise DataError(f"{name} is not a well-formed .npy file: {reason}") from error
    return NpyFile(name, dtype, shape, fortran, file.read())
