"""The pooling layers."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from backends import Array, Backend, Shape, Ties, check_integer, check_max_pooling, output_sizes
from mnist_accel.nn.layers.base import Layer, Parameters, image_shape


@dataclass(frozen=True)
class Pool2d(Layer):
    """Base of the pooling layers; an incomplete last row or column of patches is dropped.

    Attributes:
        size: side of the square patch, in pixels.
        stride: distance between patches, in pixels; `size` if None.
    """

    size: int = 2
    stride: int | None = None

    def __post_init__(self) -> None:
        check_integer(self, "size", at_least=1)
        if self.stride is not None:
            check_integer(self, "stride", at_least=1)

    @property
    def effective_stride(self) -> int:
        """The distance between patches, in pixels: `size` if `stride` is None."""
        return self.size if self.stride is None else self.stride

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C, OH, OW)."""
        channels, height, width = image_shape(self, input_shape)
        side = self.size
        return channels, *output_sizes((height, width), (side, side), stride=self.effective_stride)


@dataclass(frozen=True)
class MaxPool2d(Pool2d):
    """Maximum of each patch.

    Attributes:
        size: side of the square patch, in pixels, 1 to 7.
        stride: distance between patches, in pixels; `size` if None.
        ties: which positions that equal the maximum receive the gradient, the "first" or "all".
    """

    ties: Ties = "first"
    kind = "max_pool2d"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_max_pooling(self.size, self.ties)

    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, tuple[Array, Shape]]:
        """Return the maxima, and the tie mask with the shape of x."""
        stride = self.effective_stride
        y, mask = backend.max_pool2d(x, size=self.size, stride=stride, ties=self.ties)
        return y, (mask, x.shape)

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Any, dy: Array, *, need_dx: bool
    ) -> tuple[Array, dict[str, Array]]:
        """Add each gradient to the positions that the mask marks."""
        mask, x_shape = saved
        dx = backend.max_pool2d_backward(
            dy, mask, x_shape=x_shape, size=self.size, stride=self.effective_stride
        )
        return dx, {}


@dataclass(frozen=True)
class AvgPool2d(Pool2d):
    """Mean of each patch."""

    kind = "avg_pool2d"

    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, Shape]:
        """Return the means, and the shape of x."""
        return backend.avg_pool2d(x, size=self.size, stride=self.effective_stride), x.shape

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Any, dy: Array, *, need_dx: bool
    ) -> tuple[Array, dict[str, Array]]:
        """Distribute each gradient evenly over the positions of its patch."""
        dx = backend.avg_pool2d_backward(
            dy, x_shape=saved, size=self.size, stride=self.effective_stride
        )
        return dx, {}
