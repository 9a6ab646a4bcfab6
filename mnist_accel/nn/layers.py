"""Layers: what a network is made of.

A layer is a description. It holds no arrays: `forward` and `backward` are handed the backend and
the layer's parameters, and `forward` returns, next to its output, what `backward` will need
("saved"). Sizes of the input are not part of the description either; a network works them out from
layer to layer.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeAlias

import numpy as np

from backends import (
    ACTIVATIONS,
    Array,
    Backend,
    Ties,
    check_pooling,
    keep_fraction,
    keep_integer,
    look_up,
    output_size,
)
from mnist_accel.nn.initializers import Glorot, He, Initialiser, Zeros

Shape: TypeAlias = tuple[int, ...]
Parameters: TypeAlias = Mapping[str, Array]


class Layer(ABC):
    """Base of the layers: unless a layer says otherwise, it has no parameters and keeps the shape.

    Attributes:
        kind: the layer's name in messages, such as "linear".
        is_random: whether training hands `forward` a random generator.
    """

    kind: str
    is_random: ClassVar[bool] = False

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of one output, without the batch.

        Args:
            input_shape: shape of one input, without the batch.

        Raises:
            ValueError: the layer cannot take such inputs.
        """
        return input_shape

    def parameter_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        """Return the shapes of the parameters, "W" before "b", for inputs of `input_shape`."""
        return {}

    def initialisers(self) -> dict[str, Initialiser]:
        """Return the rule for the initial values of each parameter."""
        return {}

    def fans(self, input_shape: Shape) -> tuple[int, int]:
        """Return the terms that each output sums, and the outputs that each input takes part in.

        Only layers with parameters are asked: the rules for initial values go by it.

        Args:
            input_shape: shape of one input, without the batch.
        """
        raise NotImplementedError

    @abstractmethod
    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, Any]:
        """Compute the outputs of a batch.

        Args:
            backend: computes.
            parameters: the layer's parameters, by name.
            x: inputs (N, *input_shape).
            rng: randomness in the training of a network with a random layer; else None.

        Returns:
            Outputs (N, *output_shape), and what `backward` needs.
        """

    @abstractmethod
    def backward(
        self, backend: Backend, parameters: Parameters, saved: Any, dy: Array, *, need_dx: bool
    ) -> tuple[Array, dict[str, Array]]:
        """Compute the gradients of a batch.

        Args:
            backend: computes.
            parameters: the layer's parameters, by name.
            saved: as `forward` returned it.
            dy: gradient of the loss with respect to the outputs (N, *output_shape).
            need_dx: whether dx is wanted.

        Returns:
            dx (N, *input_shape), or None if it was not wanted, and the gradients by parameter name.
        """


@dataclass(frozen=True)
class Linear(Layer):
    """Fully connected: y = x W + b with W (in, out).

    Attributes:
        units: number of outputs.
        bias: whether b is added.
        weight_init: draws W.
        bias_init: draws b.
    """

    units: int
    bias: bool = True
    weight_init: Initialiser = He()
    bias_init: Initialiser = Zeros()
    kind = "linear"

    def __post_init__(self) -> None:
        keep_integer(self, "units", at_least=1)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (units,)."""
        if len(input_shape) != 1:
            raise ValueError(f"a linear layer takes vectors, got {input_shape}; put Flatten before")
        return (self.units,)

    def parameter_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        """Return W (in, units) and b (units,)."""
        shapes: dict[str, Shape] = {"W": (input_shape[0], self.units)}
        return {**shapes, "b": (self.units,)} if self.bias else shapes

    def initialisers(self) -> dict[str, Initialiser]:
        """Return the rules of W and b."""
        return {"W": self.weight_init, "b": self.bias_init}

    def fans(self, input_shape: Shape) -> tuple[int, int]:
        """Return the numbers of inputs and of outputs."""
        return input_shape[0], self.units

    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, Array]:
        """Return x W + b, and x."""
        return backend.linear(x, parameters["W"], parameters.get("b")), x

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Array, dy: Array, *, need_dx: bool
    ) -> tuple[Array, dict[str, Array]]:
        """Return dy Wᵀ, and xᵀ dy with the sum of dy."""
        dx, dweight, dbias = backend.linear_backward(dy, saved, parameters["W"], need_dx=need_dx)
        return dx, {"W": dweight, "b": dbias} if self.bias else {"W": dweight}


@dataclass(frozen=True)
class Conv2d(Layer):
    """Convolution with filters W (channels out, channels in, kernel_size, kernel_size).

    Attributes:
        channels: number of filters.
        kernel_size: side of a filter, in pixels.
        stride: step between output positions, in pixels.
        padding: zeros added on each side, in pixels.
        bias: whether a bias per filter is added.
        uniform: equal patches give equal outputs, to the last bit; it costs some speed, and
            max-pooling with ties="all" needs it.
        weight_init: draws the filters.
        bias_init: draws the bias.
    """

    channels: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    bias: bool = True
    uniform: bool = False
    weight_init: Initialiser = He()
    bias_init: Initialiser = Zeros()
    kind = "conv2d"

    def __post_init__(self) -> None:
        keep_integer(self, "channels", at_least=1)
        keep_integer(self, "kernel_size", at_least=1)
        keep_integer(self, "stride", at_least=1)
        keep_integer(self, "padding", at_least=0)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (channels, OH, OW)."""
        _, height, width = _image_shape(self, input_shape)
        return (self.channels, self._output_size(height), self._output_size(width))

    def parameter_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        """Return W (channels, channels in, k, k) and b (channels,)."""
        side = self.kernel_size
        shapes: dict[str, Shape] = {"W": (self.channels, input_shape[0], side, side)}
        return {**shapes, "b": (self.channels,)} if self.bias else shapes

    def initialisers(self) -> dict[str, Initialiser]:
        """Return the rules of W and b."""
        return {"W": self.weight_init, "b": self.bias_init}

    def fans(self, input_shape: Shape) -> tuple[int, int]:
        """Return the number of taps times the numbers of channels in and out."""
        taps = self.kernel_size**2
        return input_shape[0] * taps, self.channels * taps

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
    ) -> tuple[Array, dict[str, Array]]:
        """Return the gradients of the convolution."""
        dx, dweight, dbias = backend.conv2d_backward(
            dy,
            saved,
            parameters["W"],
            stride=self.stride,
            padding=self.padding,
            need_dx=need_dx,
        )
        return dx, {"W": dweight, "b": dbias} if self.bias else {"W": dweight}

    def _output_size(self, size: int) -> int:
        return output_size(size, self.kernel_size, stride=self.stride, padding=self.padding)


@dataclass(frozen=True)
class Pool2d(Layer):
    """Base of the pooling layers; a last incomplete row or column of windows is dropped.

    Attributes:
        size: side of the square window, in pixels, 1 to 7.
        stride: step between windows, in pixels; `size` if None.
    """

    size: int = 2
    stride: int | None = None

    def __post_init__(self) -> None:
        keep_integer(self, "size", at_least=1)
        check_pooling(self.size)
        if self.stride is not None:
            keep_integer(self, "stride", at_least=1)

    @property
    def step(self) -> int:
        """Step between windows, in pixels."""
        return self.size if self.stride is None else self.stride

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C, OH, OW)."""
        channels, height, width = _image_shape(self, input_shape)
        return (
            channels,
            output_size(height, self.size, stride=self.step),
            output_size(width, self.size, stride=self.step),
        )


@dataclass(frozen=True)
class MaxPool2d(Pool2d):
    """Maximum of each window.

    Attributes:
        size: side of the square window, in pixels, 1 to 7.
        stride: step between windows, in pixels; `size` if None.
        ties: which positions that equal the maximum receive the gradient, the "first" or "all".
    """

    ties: Ties = "first"
    kind = "max_pool2d"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pooling(self.size, self.ties)

    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, tuple[Array, Shape]]:
        """Return the maxima, and the tie mask with the shape of x."""
        y, mask = backend.max_pool2d(x, size=self.size, stride=self.step, ties=self.ties)
        return y, (mask, x.shape)

    def backward(
        self,
        backend: Backend,
        parameters: Parameters,
        saved: tuple[Array, tuple[int, int, int, int]],
        dy: Array,
        *,
        need_dx: bool,
    ) -> tuple[Array, dict[str, Array]]:
        """Hand each gradient to the positions that the mask names."""
        mask, x_shape = saved
        dx = backend.max_pool2d_backward(
            dy, mask, x_shape=x_shape, size=self.size, stride=self.step
        )
        return dx, {}


@dataclass(frozen=True)
class AvgPool2d(Pool2d):
    """Mean of each window."""

    kind = "avg_pool2d"

    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, Shape]:
        """Return the means, and the shape of x."""
        return backend.avg_pool2d(x, size=self.size, stride=self.step), x.shape

    def backward(
        self,
        backend: Backend,
        parameters: Parameters,
        saved: tuple[int, int, int, int],
        dy: Array,
        *,
        need_dx: bool,
    ) -> tuple[Array, dict[str, Array]]:
        """Share each gradient among the positions of its window."""
        dx = backend.avg_pool2d_backward(dy, x_shape=saved, size=self.size, stride=self.step)
        return dx, {}


@dataclass(frozen=True)
class Activation(Layer):
    """An element-wise activation.

    Its gradient is a function of the output, so the output is what `forward` saves.

    Attributes:
        kind: a key of `backends.ACTIVATIONS`, such as "relu".
    """

    kind: str

    def __post_init__(self) -> None:
        look_up("activation", self.kind, ACTIVATIONS)

    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, Array]:
        """Return y twice: as the output, and for `backward`."""
        y = backend.activation(self.kind, x)
        return y, y

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Array, dy: Array, *, need_dx: bool
    ) -> tuple[Array, dict[str, Array]]:
        """Return dy times the derivative."""
        return backend.activation_backward(self.kind, dy, saved), {}


ReLU = partial(Activation, "relu")
Sigmoid = partial(Activation, "sigmoid")
Tanh = partial(Activation, "tanh")


@dataclass(frozen=True)
class Flatten(Layer):
    """Turn images (C, H, W) into vectors (C·H·W,)."""

    kind = "flatten"

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C·H·W,)."""
        return (math.prod(input_shape),)

    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, Shape]:
        """Return the vectors, and the shape of x."""
        return backend.xp.reshape(x, (x.shape[0], math.prod(x.shape[1:]))), x.shape

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Shape, dy: Array, *, need_dx: bool
    ) -> tuple[Array, dict[str, Array]]:
        """Return dy in the shape of x."""
        return backend.xp.reshape(dy, saved), {}


@dataclass(frozen=True)
class Dropout(Layer):
    """Set a random part of the inputs to 0 in training, and scale up the rest (inverted dropout).

    Masks are drawn on the host, so that every backend drops the same units.
    Source: Srivastava et al. 2014.

    Attributes:
        rate: probability that an input is set to 0, at least 0 and less than 1.
    """

    rate: float
    kind = "dropout"
    is_random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        keep_fraction(self, "rate")

    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, Array | None]:
        """Return x · mask, and the mask; x itself in inference."""
        if rng is None:
            return x, None
        kept = rng.random(tuple(x.shape)) >= self.rate
        mask = backend.xp.astype(backend.asarray(kept), x.dtype) / (1 - self.rate)
        return x * mask, mask

    def backward(
        self,
        backend: Backend,
        parameters: Parameters,
        saved: Array | None,
        dy: Array,
        *,
        need_dx: bool,
    ) -> tuple[Array, dict[str, Array]]:
        """Return dy · mask."""
        return (dy if saved is None else dy * saved), {}


def default_init(activation: str) -> Initialiser:
    """Return the initialiser that suits layers followed by `activation`."""
    return He() if activation == "relu" else Glorot()


def _image_shape(layer: Layer, input_shape: Shape) -> tuple[int, int, int]:
    if len(input_shape) != 3:
        raise ValueError(f"{layer.kind} takes images (channels, height, width), got {input_shape}")
    return input_shape[0], input_shape[1], input_shape[2]
