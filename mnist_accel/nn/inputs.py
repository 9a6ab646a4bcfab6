"""What a network takes: the pixels of images, or features of any kind."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import Shape, as_integers, as_number, shown
from mnist_accel.data.arrays import (
    as_feature_rows,
    as_rows,
    feature_shapes,
    image_shapes,
    require_finite,
    require_range,
)


@dataclass(frozen=True, init=False)
class Input(ABC):
    """Base class of `Pixels` and `Features`.

    Attributes:
        shape: shape of one input as the first layer takes it, such as (784,) or (1, 28, 28).
    """

    shape: Shape

    def __init__(self, shape: int | Shape) -> None:
        is_number = isinstance(shape, int | np.integer) and not isinstance(shape, bool)
        sides = (shape,) if is_number else shape
        checked = as_integers("shape", sides, at_least=1)
        if not checked:
            raise ValueError(f"shape must have at least one number, got {shown(shape)}")
        object.__setattr__(self, "shape", checked)

    @property
    @abstractmethod
    def shapes(self) -> list[Shape]:
        """The shapes of one input that `as_rows` accepts."""

    @abstractmethod
    def as_rows(self, values: NDArray[Any], *, dtype: str) -> NDArray[Any]:
        """Return host inputs (N, …) as rows, after checking shape and dtype, but not the values.

        Raises:
            ValueError: the shape is wrong.
            TypeError: the dtype is wrong.
        """

    @abstractmethod
    def check(self, rows: NDArray[Any], values: NDArray[Any]) -> None:
        """Check the values of inputs.

        Args:
            rows: the result of `as_rows`.
            values: its argument, which error messages quote.

        Raises:
            ValueError: a value is not allowed.
        """


@dataclass(frozen=True, init=False)
class Pixels(Input):
    """Images: uint8 in 0…255, which are scaled to 0…1, floats in 0…1, or bool.

    >>> Pixels(784), Pixels((1, 28, 28), shift=-0.5)
    (Pixels(shape=(784,), shift=0.0), Pixels(shape=(1, 28, 28), shift=-0.5))

    Attributes:
        shift: added to pixels after scaling to 0…1.
    """

    shift: float

    def __init__(self, shape: int | Shape, shift: float = 0.0) -> None:
        super().__init__(shape)
        object.__setattr__(self, "shift", as_number("shift", shift))

    @property
    def shapes(self) -> list[Shape]:
        """The shape as the first layer takes it, flat, and for one channel without channels."""
        return image_shapes(self.shape)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of gray images; None for images with several channels.

        Flat pixels are those of a square image.
        """
        height, width = (1, *self.shape)[-2:]
        if len(self.shape) == 1:
            height = width = math.isqrt(self.shape[0])
        return (height, width) if height * width == math.prod(self.shape) else None

    def as_rows(self, values: NDArray[Any], *, dtype: str) -> NDArray[Any]:
        """Return images (N, …) as rows of pixels (N, pixels), uint8 or `dtype`."""
        return as_rows(values, input_shape=self.shape, dtype=dtype)

    def check(self, rows: NDArray[Any], values: NDArray[Any]) -> None:
        """Check that floating-point pixels are in 0…1."""
        require_range(rows, values)


@dataclass(frozen=True, init=False)
class Features(Input):
    """Numbers of any kind, which are not scaled; all must be finite.

    >>> Features(100), Features((3, 8, 8))
    (Features(shape=(100,)), Features(shape=(3, 8, 8)))
    """

    @property
    def shapes(self) -> list[Shape]:
        """The shape as the first layer takes it; that of images also as in `Pixels`."""
        return feature_shapes(self.shape)

    def as_rows(self, values: NDArray[Any], *, dtype: str) -> NDArray[Any]:
        """Return features (N, …) as rows (N, features) of `dtype`."""
        return as_feature_rows(values, shape=self.shape, dtype=dtype)

    def check(self, rows: NDArray[Any], values: NDArray[Any]) -> None:
        """Check that all features are finite in the dtype of the network."""
        require_finite("features", rows, values)
