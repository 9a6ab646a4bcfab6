"""The interface of a layer."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, TypeAlias

import numpy as np

from backends import Array, Backend, Shape
from mnist_accel.nn.initializers import Initializer

Parameters: TypeAlias = Mapping[str, Array]


class Layer(ABC):
    """Base class of all layers.

    By default, a layer has no parameters, and its outputs have the shape of its inputs.

    A layer is a frozen dataclass. It holds no arrays: `forward` and `backward` receive the backend
    and the parameters, and `forward` returns its output and the values that `backward` receives as
    `saved`. A layer does not hold the shape of its input; the network computes all shapes.

    A subclass must set `kind` and define `forward` and `backward`. Networks with it then train
    eagerly on every backend. To save and load such networks, register the subclass with
    `mnist_accel.register`. A backend compiles them if it has a kernel for the kind.

    Attributes:
        kind: name of the layer in messages and files, such as "linear".
        is_random: whether `forward` needs a random generator in training.
    """

    kind: str
    is_random: ClassVar[bool] = False

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of one output.

        Args:
            input_shape: shape of one input. Both shapes exclude the batch dimension.

        Raises:
            ValueError: the layer does not accept inputs of this shape.
        """
        return input_shape

    def parameter_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        """Return the shapes of the parameters by name, "W" before "b"."""
        return {}

    def initializers(self) -> dict[str, Initializer]:
        """Return the initializer of each parameter, by name."""
        return {}

    @property
    def settings(self) -> dict[str, Any]:
        """The fields that files and programs contain: all except `kind` and the initializers."""
        initializers = [id(initializer) for initializer in self.initializers().values()]
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {k: v for k, v in values.items() if k != "kind" and id(v) not in initializers}

    @abstractmethod
    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, Any]:
        """Return the outputs of a batch `(N, *output_shape)`, and the values for `backward`.

        Args:
            backend: the backend that computes.
            parameters: the layer's parameters, by name.
            x: inputs `(N, *input_shape)`.
            rng: random generator in training; None in inference and for networks without random
                layers.
        """

    @abstractmethod
    def backward(
        self, backend: Backend, parameters: Parameters, saved: Any, dy: Array, *, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return the gradients of the loss with respect to the inputs and the parameters.

        Args:
            backend: the backend that computes.
            parameters: the layer's parameters, by name.
            saved: the second result of `forward`.
            dy: gradient of the loss with respect to the outputs `(N, *output_shape)`.
            need_dx: whether the caller uses dx; if False, dx need not be computed.

        Returns:
            dx `(N, *input_shape)`, the gradient of the inputs, and the gradients of the parameters
            by name. dx may be None if `need_dx` is False.
        """


def image_shape(layer: Layer, input_shape: Shape) -> tuple[int, int, int]:
    """Return an input shape as (channels, height, width).

    Raises:
        ValueError: the input is not an image.
    """
    if len(input_shape) != 3:
        raise ValueError(f"{layer.kind} takes images (channels, height, width), got {input_shape}")
    return input_shape[0], input_shape[1], input_shape[2]
