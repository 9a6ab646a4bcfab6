"""Names the value that makes an array invalid, for error messages."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def first_value(array: NDArray[Any], mask: NDArray[np.bool_]) -> str:
    """Return the first value that `mask` selects, exactly, with its index: "nan at index (0, 5)".

    Args:
        array: any numbers.
        mask: booleans in the shape of `array`, at least one of them true.
    """
    index = tuple(int(i) for i in np.unravel_index(int(mask.argmax()), mask.shape))
    place = str(index[0]) if len(index) == 1 else str(index)
    # str() of a NumPy scalar has as many digits as distinguish it from its neighbors.
    return f"{array[index]!s} at index {place}"
