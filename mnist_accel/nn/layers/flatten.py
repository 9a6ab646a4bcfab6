"""The layer between images and vectors."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backends import Array, Backend
from mnist_accel.nn.layers.base import Layer, Parameters, Shape


@dataclass(frozen=True)
class Flatten(Layer):
    """Reshape images (C, H, W) to vectors (C·H·W,)."""

    kind = "flatten"

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C·H·W,)."""
        return (math.prod(input_shape),)

    def stage(self, input_shape: Shape, output_shape: Shape, offsets: Mapping[str, int]) -> None:
        """Return None: the elements have the same order in memory before and after."""

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
