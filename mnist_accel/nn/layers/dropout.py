"""The dropout layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backends import Array, Backend, NotCompiledError, Stage, check_fraction
from mnist_accel.nn.layers.base import Layer, Parameters, Shape


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

    def stage(self, input_shape: Shape, output_shape: Shape, offsets: Mapping[str, int]) -> Stage:
        """Raise NotCompiledError: the masks come from the host."""
        raise NotCompiledError("the masks of dropout are drawn on the host at every step")

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
