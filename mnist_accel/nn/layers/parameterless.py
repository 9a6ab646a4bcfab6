"""Layers without parameters: activations, dropout, and the reshaping of images to vectors."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from backends import ACTIVATIONS, Array, Backend, Shape, check_fraction, check_name
from mnist_accel.nn.layers.base import Layer, Parameters


@dataclass(frozen=True)
class Activation(Layer):
    """An element-wise activation.

    Its gradient is a function of the output, so the output is what `forward` saves.

    Attributes:
        kind: a key of `backends.ACTIVATIONS`, such as "relu".
    """

    kind: str

    def __post_init__(self) -> None:
        check_name(self, "kind", "activation", ACTIVATIONS)

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
class Dropout(Layer):
    """Set random inputs to 0 in training and scale up the others (inverted dropout).

    The masks are drawn on the host, so every backend drops the same inputs.
    Source: Srivastava et al. 2014.

    Attributes:
        rate: probability that an input is set to 0, at least 0 and less than 1.
    """

    rate: float
    kind = "dropout"
    is_random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fraction(self, "rate")

    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, Array | None]:
        """Return x · mask, and the mask; in inference x itself, and None."""
        if rng is None:
            return x, None
        kept = rng.random(tuple(x.shape)) >= self.rate
        mask = backend.xp.astype(backend.asarray(kept), x.dtype) / (1 - self.rate)
        return x * mask, mask

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Any, dy: Array, *, need_dx: bool
    ) -> tuple[Array, dict[str, Array]]:
        """Return dy · mask."""
        return (dy if saved is None else dy * saved), {}


@dataclass(frozen=True)
class Flatten(Layer):
    """Reshape images (C, H, W) to vectors (C·H·W,)."""

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
