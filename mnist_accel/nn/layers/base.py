"""The interface of a layer."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import numpy as np

from backends import Array, Backend, NotCompiledError, Shape, Stage
from mnist_accel.nn.initializers import Initializer

Parameters: TypeAlias = Mapping[str, Array]


class Layer(ABC):
    """Base of the layers: by default no parameters, and outputs in the shape of the inputs.

    A layer is a frozen dataclass. It holds no arrays: `forward` and `backward` receive the backend
    and the parameters, and `forward` returns, next to its output, what `backward` needs ("saved").
    It does not hold the size of its input either, which a network computes from layer to layer.

    A subclass must set `kind` and define `forward` and `backward`. Networks with it then train
    eagerly on every backend. An entry in `mnist_accel.nn.LAYERS` makes files of models accept it,
    and `stage` gives it a compiled form.

    Attributes:
        kind: name of the layer in messages and files, such as "linear".
        is_random: whether `forward` needs a random generator in training.
    """

    kind: str
    is_random: ClassVar[bool] = False

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of one output.

        Args:
            input_shape: shape of one input. Neither includes the batch.

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

    def stage(
        self, input_shape: Shape, output_shape: Shape, offsets: Mapping[str, int]
    ) -> Stage | None:
        """Return the layer as a stage of a compiled program, or None if it computes nothing.

        Args:
            input_shape: shape of one input.
            output_shape: shape of one output.
            offsets: index of each parameter in the parameter vector, by the layer's own name.

        Raises:
            NotCompiledError: the layer has no compiled form.
        """
        raise NotCompiledError(f"the layer {self.kind} has no compiled form")

    @abstractmethod
    def forward(
        self, backend: Backend, parameters: Parameters, x: Array, rng: np.random.Generator | None
    ) -> tuple[Array, Any]:
        """Return the outputs of a batch (N, *output_shape), and what `backward` needs.

        Args:
            backend: computes.
            parameters: the layer's parameters, by name.
            x: inputs (N, *input_shape).
            rng: random generator for training a network with a random layer; else None.
        """

    @abstractmethod
    def backward(
        self, backend: Backend, parameters: Parameters, saved: Any, dy: Array, *, need_dx: bool
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return the gradients of a batch.

        Args:
            backend: computes.
            parameters: the layer's parameters, by name.
            saved: the second result of `forward`.
            dy: gradient of the loss with respect to the outputs (N, *output_shape).
            need_dx: whether dx is needed.

        Returns:
            dx (N, *input_shape), which may be None if `need_dx` is False, and the gradients of the
            parameters by name.
        """


def image_shape(layer: Layer, input_shape: Shape) -> tuple[int, int, int]:
    """Return an input shape as (channels, height, width).

    Raises:
        ValueError: the input is not an image.
    """
    if len(input_shape) != 3:
        raise ValueError(f"{layer.kind} takes images (channels, height, width), got {input_shape}")
    return input_shape[0], input_shape[1], input_shape[2]
