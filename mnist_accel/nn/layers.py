"""Layers: what a network is made of.

A layer is a description. It holds no arrays: `forward` and `backward` are handed the backend and
the layer's parameters, and `forward` returns, next to its output, what `backward` will need
("saved"). Sizes of the input are not part of the description either; a network works them out from
layer to layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from mnist_accel.array_layer import Backend
from mnist_accel.nn.initialisers import Glorot, He, Initialiser, Zeros

Array: TypeAlias = Any
Shape: TypeAlias = tuple[int, ...]
Parameters: TypeAlias = Mapping[str, Array]


class Layer:
    """Base of the layers, and itself a layer without parameters that keeps the shape.

    Attributes:
        kind: the layer's name in messages, such as "linear".
    """

    kind: ClassVar[str]

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

        Args:
            input_shape: shape of one input, without the batch.
        """
        raise NotImplementedError

    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, Any]:
        """Compute the outputs of a batch.

        Args:
            backend: computes.
            parameters: the layer's parameters, by name.
            x: inputs (N, *input_shape).
            rng: randomness for layers that behave differently in training; None for inference.

        Returns:
            Outputs (N, *output_shape), and what `backward` needs.
        """
        raise NotImplementedError

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
        raise NotImplementedError


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
    kind: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        if self.units < 1:
            raise ValueError(f"units must be at least 1, got {self.units}")

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
        uniform: equal patches give equal outputs, to the last bit; max-pooling with ties="all"
        needs
            it, and it costs some speed.
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
    kind: ClassVar[str] = "conv2d"

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"channels must be at least 1, got {self.channels}")

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (channels, OH, OW)."""
        _, height, width = _image_shape(self, input_shape)
        return (self.channels, *(self._size(side) for side in (height, width)))

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

    def _size(self, size: int) -> int:
        return _window_count(
            self, size, window=self.kernel_size, stride=self.stride, padding=self.padding
        )


@dataclass(frozen=True)
class MaxPool2d(Layer):
    """Maximum of each square window; a last incomplete row or column is dropped.

    Attributes:
        size: side of the window, in pixels.
        stride: step between windows, in pixels; `size` if None.
        ties: which positions that equal the maximum receive the gradient, the "first" or "all".
    """

    size: int = 2
    stride: int | None = None
    ties: Literal["first", "all"] = "first"
    kind: ClassVar[str] = "max_pool2d"

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C, OH, OW)."""
        return _pooled_shape(self, input_shape)

    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, tuple[Array, Shape]]:
        """Return the maxima, and the tie mask with the shape of x."""
        stride = self.stride or self.size
        y, mask = backend.max_pool2d(x, size=self.size, stride=stride, ties=self.ties)
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
        stride = self.stride or self.size
        dx = backend.max_pool2d_backward(dy, mask, x_shape=x_shape, size=self.size, stride=stride)
        return dx, {}


@dataclass(frozen=True)
class AvgPool2d(Layer):
    """Mean of each square window; a last incomplete row or column is dropped.

    Attributes:
        size: side of the window, in pixels.
        stride: step between windows, in pixels; `size` if None.
    """

    size: int = 2
    stride: int | None = None
    kind: ClassVar[str] = "avg_pool2d"

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C, OH, OW)."""
        return _pooled_shape(self, input_shape)

    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, Shape]:
        """Return the means, and the shape of x."""
        y = backend.avg_pool2d(x, size=self.size, stride=self.stride or self.size)
        return y, x.shape

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
        stride = self.stride or self.size
        return backend.avg_pool2d_backward(dy, x_shape=saved, size=self.size, stride=stride), {}


class Activation(Layer):
    """Base of the element-wise layers: the backend has an operation called like the layer.

    Their gradients are functions of the output, so the output is what `forward` saves.
    """

    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, Array]:
        """Return y twice: as the output, and for `backward`."""
        y = getattr(backend, self.kind)(x)
        return y, y

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Array, dy: Array, *, need_dx: bool
    ) -> tuple[Array, dict[str, Array]]:
        """Return dy times the derivative."""
        return getattr(backend, f"{self.kind}_backward")(dy, saved), {}


@dataclass(frozen=True)
class ReLU(Activation):
    """max(x, 0); the gradient at 0 is 0."""

    kind: ClassVar[str] = "relu"


@dataclass(frozen=True)
class Sigmoid(Activation):
    """1 / (1 + exp(−x))."""

    kind: ClassVar[str] = "sigmoid"


@dataclass(frozen=True)
class Tanh(Activation):
    """The hyperbolic tangent."""

    kind: ClassVar[str] = "tanh"


@dataclass(frozen=True)
class Flatten(Layer):
    """Turn images (C, H, W) into vectors (C·H·W,)."""

    kind: ClassVar[str] = "flatten"

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C·H·W,)."""
        return (int(np.prod(input_shape)),)

    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, Shape]:
        """Return the vectors, and the shape of x."""
        return backend.xp.reshape(x, (x.shape[0], int(np.prod(x.shape[1:])))), x.shape

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
    kind: ClassVar[str] = "dropout"

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"dropout rate must be at least 0 and less than 1, got {self.rate}")

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


ACTIVATIONS: dict[str, type[Layer]] = {"relu": ReLU, "sigmoid": Sigmoid, "tanh": Tanh}


def default_init(activation: str) -> Initialiser:
    """Return the initialiser that suits layers followed by `activation`."""
    return He() if activation == "relu" else Glorot()


def _image_shape(layer: Layer, input_shape: Shape) -> tuple[int, int, int]:
    if len(input_shape) != 3:
        raise ValueError(f"{layer.kind} takes images (channels, height, width), got {input_shape}")
    return input_shape[0], input_shape[1], input_shape[2]


def _pooled_shape(layer: MaxPool2d | AvgPool2d, input_shape: Shape) -> Shape:
    channels, height, width = _image_shape(layer, input_shape)
    stride = layer.stride or layer.size
    sides = (
        _window_count(layer, side, window=layer.size, stride=stride) for side in (height, width)
    )
    return (channels, *sides)


def _window_count(layer: Layer, size: int, *, window: int, stride: int, padding: int = 0) -> int:
    """Return how many windows fit along one axis of the layer's input."""
    if window < 1 or stride < 1 or padding < 0 or size + 2 * padding < window:
        raise ValueError(f"{layer} does not fit an input {size} pixels wide")
    return (size + 2 * padding - window) // stride + 1
