"""One contiguous vector that holds all parameters of a network.

The parameters of the layers are views of it. So an optimizer step is one operation, a copy of the
weights is one copy, and a kernel needs one pointer.
"""

import math
from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import Backend, Shape, require_type, shown
from mnist_accel.util.values import first_value


class ParameterVector:
    """A flat array on a backend, with named, shaped views; all zeros at first.

    Args:
        backend: the backend of the array.
        shapes: shape of each part by name, in the order of the vector.
        dtype: name of the dtype.

    Attributes:
        flat: the array, one-dimensional.
        views: the parts of `flat` by name, each in its shape; writing to one writes to `flat`.
    """

    def __init__(self, backend: Backend, shapes: Mapping[str, Shape], *, dtype: str) -> None:
        self.backend = backend
        self.dtype = dtype
        self.shapes = dict(shapes)
        ends = [0, *accumulate(math.prod(shape) for shape in self.shapes.values())]
        self._slices = {
            name: slice(*bounds) for name, bounds in zip(shapes, pairwise(ends), strict=True)
        }
        self.flat = backend.zeros((ends[-1],), dtype=dtype)
        self.views = {
            name: backend.xp.reshape(self.flat[part], self.shapes[name], copy=False)
            for name, part in self._slices.items()
        }

    def to_host(self) -> dict[str, NDArray[Any]]:
        """Return a copy of each part as a NumPy array."""
        flat = self.backend.to_numpy(self.flat)
        return {name: flat[part].reshape(self.shapes[name]) for name, part in self._slices.items()}

    def set_from_host(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Overwrite all parts, or none if one of them is invalid.

        Args:
            values: for every name an array of real numbers in the shape of the part.

        Raises:
            ValueError: a name is missing or unknown, a shape differs, or a value is not finite in
                the vector's dtype.
        """
        require_type("state", values, Mapping, "a dict of arrays as state_dict returns")
        if values.keys() != self.shapes.keys():
            raise ValueError(
                f"expected parameters {', '.join(self.shapes)}, got {', '.join(values) or 'none'}"
            )
        parts = [self._flat_part(name, values[name]) for name in self.shapes]
        with self.backend.computation(frozenset()):
            self.flat[...] = self.backend.asarray(np.concatenate(parts))

    def _flat_part(self, name: str, value: NDArray[Any]) -> NDArray[Any]:
        """Return the values of a part, flat and in the vector's dtype, after checking them."""
        try:
            value = np.asarray(value)
        except ValueError:  # lists of unequal lengths
            raise ValueError(f"parameter {name} must be an array, got {shown(value)}") from None
        if value.shape != self.shapes[name]:
            raise ValueError(
                f"parameter {name} must have shape {self.shapes[name]}, got {value.shape}"
            )
        if value.dtype.kind not in "fiu":
            raise ValueError(f"parameter {name} must hold real numbers, got {value.dtype}")
        with np.errstate(over="ignore"):  # the check below reports overflow
            part = value.ravel().astype(self.dtype)
        finite = np.isfinite(part).reshape(value.shape)
        if not finite.all():
            raise ValueError(
                f"parameter {name} contains {first_value(value, ~finite)}, not finite in "
                f"{self.dtype}"
            )
        return part
