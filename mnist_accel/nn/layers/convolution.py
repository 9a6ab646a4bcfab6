"""The convolution layer."""

from dataclasses import dataclass

import numpy as np

from backends import (
    Array,
    Backend,
    Shape,
    check_boolean,
    check_callable,
    check_integer,
    output_sizes,
)
from mnist_accel.nn.initializers import He, Initializer, Zeros
from mnist_accel.nn.layers.base import Layer, Parameters, image_shape


@dataclass(frozen=True)
class Conv2d(Layer):
    """Convolution with filters W (channels out, channels in, kernel_size, kernel_size).

    Attributes:
        channels: number of filters.
        kernel_size: side of a filter, in pixels.
        stride: distance between output positions, in pixels.
        padding: zeros added on each side, in pixels.
        bias: whether a bias per filter is added.
        uniform: whether equal patches give bit-identical outputs. This is slower on some backends;
            max-pooling with ties="all" needs it.
        weight_init: initializer of the filters.
        bias_init: initializer of the bias.
    """

    channels: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    bias: bool = True
    uniform: bool = False
    weight_init: Initializer = He()
    bias_init: Initializer = Zeros()
    kind = "conv2d"

    def __post_init__(self) -> None:
        check_integer(self, "channels", at_least=1)
        check_integer(self, "kernel_size", at_least=1)
        check_integer(self, "stride", at_least=1)
        check_integer(self, "padding", at_least=0)
        check_boolean(self, "bias")
        check_boolean(self, "uniform")
        check_callable(self, "weight_init")
        check_callable(self, "bias_init")

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (channels, OH, OW)."""
        _, height, width = image_shape(self, input_shape)
        side = self.kernel_size
        return self.channels, *output_sizes(
            (height, width), (side, side), stride=self.stride, padding=self.padding
        )

    def parameter_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        """Return W (channels, channels in, k, k) and b (channels,)."""
        side = self.kernel_size
        shapes: dict[str, Shape] = {"W": (self.channels, input_shape[0], side, side)}
        return {**shapes, "b": (self.channels,)} if self.bias else shapes

    def initializers(self) -> dict[str, Initializer]:
        """Return the initializers of W and b."""
        return {"W": self.weight_init, "b": self.bias_init}

    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, Array]:
        """Return the feature maps, and x."""
        y = backend.conv2d(
            x,
            parameters["W"],
            parameters.get("b"),
            stride=self.stride,
            padding=self.padding,
            uniform=self.uniform,
        )
        return y, x

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Array, dy: Array, *, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return the gradients of the convolution."""
        dx, dweight, dbias = backend.conv2d_backward(
            dy, saved, parameters["W"], stride=self.stride, padding=self.padding, need_dx=need_dx
        )
        return dx, {"W": dweight, "b": dbias} if self.bias else {"W": dweight}
