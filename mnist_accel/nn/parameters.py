"""One contiguous vector that holds all parameters of a network.

The layers see views into it. So an optimizer is one operation, a checkpoint is one copy, and there
is one thing to hand to a kernel or to add up across devices.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mnist_accel.array_layer import Backend

Array: TypeAlias = Any
Shape: TypeAlias = tuple[int, ...]


class ParameterVector:
    """A flat array on a backend, with named, shaped views.

    Attributes:
        backend: owns the array.
        dtype: name of its dtype.
        shapes: shape of each part, by name, in the order in which they lie.
        flat: the array, one-dimensional.
        views: the parts of `flat`, each in its shape; writing to one writes to `flat`.
    """

    def __init__(self, backend: Backend, shapes: Mapping[str, Shape], *, dtype: str) -> None:
        self.backend = backend
        self.dtype = dtype
        self.shapes = dict(shapes)
        self.flat = backend.zeros((sum(map(_size, self.shapes.values())),), dtype=dtype)
        self.views = _views(backend, self.flat, self.shapes)

    def to_host(self) -> dict[str, NDArray[Any]]:
        """Return a copy of each part as a NumPy array."""
        return split(self.backend.to_numpy(self.flat), self.shapes)

    def set_from_host(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Overwrite all parts.

        Args:
            values: an array of the right shape for every name, of any floating dtype.

        Raises:
            ValueError: a name is missing or unknown, or a shape differs.
        """
        if values.keys() != self.shapes.keys():
            raise ValueError(
                f"expected parameters {', '.join(self.shapes)}, got {', '.join(values) or 'none'}"
            )
        for name, shape in self.shapes.items():
            found = tuple(np.shape(values[name]))
            if found != shape:
                raise ValueError(f"parameter {name} must have shape {shape}, got {found}")
        flat = np.concatenate([np.ravel(values[name]) for name in self.shapes])
        self.flat[...] = self.backend.asarray(flat, dtype=self.dtype)


def split(flat: NDArray[Any], shapes: Mapping[str, Shape]) -> dict[str, NDArray[Any]]:
    """Cut a flat host array into named parts."""
    parts, start = {}, 0
    for name, shape in shapes.items():
        end = start + _size(shape)
        parts[name] = flat[start:end].reshape(shape)
        start = end
    return parts


def _views(backend: Backend, flat: Array, shapes: Mapping[str, Shape]) -> dict[str, Array]:
    """Return the named parts of a flat array on a backend, without copying."""
    views, start = {}, 0
    for name, shape in shapes.items():
        end = start + _size(shape)
        views[name] = backend.xp.reshape(flat[start:end], shape, copy=False)
        start = end
    return views


def _size(shape: Shape) -> int:
    return int(np.prod(shape))
