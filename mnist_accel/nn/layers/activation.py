"""The element-wise activations. Their formulas are in `backends.operations.activations`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from backends import ACTIVATIONS, Array, Backend, Stage, look_up
from mnist_accel.nn.layers.base import Layer, Parameters, Shape


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

    def stage(self, input_shape: Shape, output_shape: Shape, offsets: Mapping[str, int]) -> Stage:
        """Return an "activation" stage, which a backend compiles if it has a kernel for `kind`."""
        return Stage("activation", input_shape, output_shape, activation=self.kind)

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
