"""Element-wise activations and their gradients.

To add an activation, write two functions here and add them to `ACTIVATIONS`. Every backend can then
compute it, `mnist_accel.nn.Activation(name)` is its layer, and the command line and the files of
models accept its name. A network that uses it trains eagerly on a backend without a kernel for it.
A kernel needs one case in `backends/numba/kernels/elementwise.py` or in
`backends/cupy/kernels/common.cuh`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from array_api_compat import device

from backends.names import Table, look_up
from backends.operations.common import (
    Array,
    Operations,
    require_array,
    require_same_dtype,
    require_shape,
)


@dataclass(frozen=True)
class ActivationFormula:
    """An activation y = f(x) and its gradient.

    Attributes:
        value: `value(xp, x)` returns y in the shape and dtype of `x`.
        gradient: `gradient(xp, dy, y)` returns dy · f′(x). It is a function of the output `y`, so
            that a layer does not need to keep its input.
        is_increasing: whether f never decreases. If so, compiled backends take the maximum of a
            pooling patch before they apply f, which they then compute for fewer elements.
    """

    value: Callable[[Any, Array], Array]
    gradient: Callable[[Any, Array, Array], Array]
    is_increasing: bool = False


def relu(xp: Any, x: Array) -> Array:
    """Return max(x, 0); NaN stays NaN."""
    return xp.maximum(x, xp.zeros((), dtype=x.dtype, device=device(x)))


def relu_gradient(xp: Any, dy: Array, y: Array) -> Array:
    """Return 0 where y ≤ 0, and dy elsewhere; where y is NaN this is dy, as in PyTorch.

    Where y ≤ 0 and dy is NaN or infinite, the product is NaN. `where` would return 0, as PyTorch
    and the compiled kernels do, but its branches are unpredictable: on a CPU it takes up to ten
    times as long.
    """
    gradient = xp.astype(xp.logical_not(y <= 0), dy.dtype)
    gradient *= dy
    return gradient


def sigmoid(xp: Any, x: Array) -> Array:
    """Return 1 / (1 + exp(−x)).

    Only exp(−|x|) ≤ 1 is computed, so nothing overflows. For negative x, numerator and denominator
    are multiplied by exp(x).
    """
    decay = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, xp.ones_like(decay), decay) / (1 + decay)


def sigmoid_gradient(xp: Any, dy: Array, y: Array) -> Array:
    """Return dy · y · (1 − y)."""
    return dy * y * (1 - y)


def tanh(xp: Any, x: Array) -> Array:
    """Return the hyperbolic tangent of `x`."""
    return xp.tanh(x)


def tanh_gradient(xp: Any, dy: Array, y: Array) -> Array:
    """Return dy · (1 − y²)."""
    return dy * (1 - y * y)


ACTIVATIONS: Table[ActivationFormula] = Table(
    "activation",
    {
        "relu": ActivationFormula(relu, relu_gradient, is_increasing=True),
        "sigmoid": ActivationFormula(sigmoid, sigmoid_gradient, is_increasing=True),
        "tanh": ActivationFormula(tanh, tanh_gradient, is_increasing=True),
    },
)


class Activations(Operations):
    """Element-wise activations and their gradients, by name."""

    def activation(self, kind: str, x: Array) -> Array:
        """Return an activation of `x`, in the shape and dtype of `x`.

        Args:
            kind: a key of `ACTIVATIONS`.
            x: inputs of any shape.

        Raises:
            ValueError: `kind` is unknown.
        """
        return look_up("activation", kind, ACTIVATIONS).value(self.xp, x)

    def activation_backward(self, kind: str, dy: Array, y: Array) -> Array:
        """Return the gradient of `activation` with respect to `x`.

        Args:
            kind: as given to `activation`.
            dy: gradient of the loss with respect to the output.
            y: the output of `activation`, in the shape and dtype of `dy`.

        Raises:
            TypeError: the dtypes differ.
            ValueError: `kind` is unknown, or the shapes differ.
        """
        require_same_dtype("activation_backward", dy=dy, y=y)
        require_array("dy", dy)
        require_shape("y", y, tuple(dy.shape))
        return look_up("activation", kind, ACTIVATIONS).gradient(self.xp, dy, y)
