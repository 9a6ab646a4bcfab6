"""The fully connected layer."""

from dataclasses import dataclass

import numpy as np

from backends import Array, Backend, Shape, check_boolean, check_callable, check_integer
from mnist_accel.nn.initializers import He, Initializer, Zeros
from mnist_accel.nn.layers.base import Layer, Parameters


@dataclass(frozen=True)
class Linear(Layer):
    """Fully connected: y = x W + b with W (in, out).

    Attributes:
        units: number of outputs.
        bias: whether b is added.
        weight_init: initializer of W.
        bias_init: initializer of b.
    """

    units: int
    bias: bool = True
    weight_init: Initializer = He()
    bias_init: Initializer = Zeros()
    kind = "linear"

    def __post_init__(self) -> None:
        check_integer(self, "units", at_least=1)
        check_boolean(self, "bias")
        check_callable(self, "weight_init")
        check_callable(self, "bias_init")

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (units,)."""
        if len(input_shape) != 1:
            raise ValueError(f"a linear layer takes vectors, got {input_shape}; put Flatten before")
        return (self.units,)

    def parameter_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        """Return W (in, units) and b (units,)."""
        shapes: dict[str, Shape] = {"W": (input_shape[0], self.units)}
        return {**shapes, "b": (self.units,)} if self.bias else shapes

    def initializers(self) -> dict[str, Initializer]:
        """Return the initializers of W and b."""
        return {"W": self.weight_init, "b": self.bias_init}

    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, Array]:
        """Return x W + b, and x."""
        return backend.linear(x, parameters["W"], parameters.get("b")), x

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Array, dy: Array, *, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return dy Wᵀ, and xᵀ dy with the sum of dy."""
        dx, dweight, dbias = backend.linear_backward(dy, saved, parameters["W"], need_dx=need_dx)
        return dx, {"W": dweight, "b": dbias} if self.bias else {"W": dweight}
