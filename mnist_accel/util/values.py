"""Describes an invalid value of an array, for error messages."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def first_value(array: NDArray[Any], mask: NDArray[np.bool_]) -> str:
    """Return the first value that `mask` selects, and its index, as in "nan at index (0, 5)".

    Args:
        array: numbers of any dtype.
        mask: booleans in the shape of `array`. At least one must be True.
    """
    index = tuple(int(i) for i in np.unravel_index(int(mask.argmax()), mask.shape))
    place = str(index[0]) if len(index) == 1 else str(index)
    # str() of a NumPy scalar writes enough digits to tell it from all other numbers of its dtype.
    return f"{array[index]!s} at index {place}"
