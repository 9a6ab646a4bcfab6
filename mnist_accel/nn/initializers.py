"""Initializers: the rules for initial weights.

Numbers are drawn on the host in float64 from one generator and then rounded to the dtype of the
network. So the same seed gives the same weights on every backend.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Initializer(Protocol):
    """A rule for the initial values of a parameter."""

    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], *, fan_in: int, fan_out: int
    ) -> NDArray[np.float64]:
        """Return initial values of `shape`, float64.

        Args:
            rng: random generator.
            shape: shape of the parameter.
            fan_in: number of terms that each output of the layer sums.
            fan_out: number of outputs that each input of the layer contributes to.
        """


@dataclass(frozen=True)
class Zeros:
    """All values 0."""

    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], *, fan_in: int, fan_out: int
    ) -> NDArray[np.float64]:
        """Return zeros of `shape`; draw no numbers."""
        return np.zeros(shape)


@dataclass(frozen=True)
class Normal:
    """Normal values of mean 0.

    Attributes:
        std: standard deviation.
        output_major: whether a matrix (in, out) is filled column by column. Programs that store it
            as (out, in) draw in this order.
    """

    std: float
    output_major: bool = False

    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], *, fan_in: int, fan_out: int
    ) -> NDArray[np.float64]:
        """Return random values of `shape`."""
        if self.output_major:
            return self.std * rng.standard_normal(shape[::-1]).T
        return self.std * rng.standard_normal(shape)


@dataclass(frozen=True)
class He:
    """Normal values of variance 2 / fan_in, for layers followed by ReLU (He et al. 2015)."""

    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], *, fan_in: int, fan_out: int
    ) -> NDArray[np.float64]:
        """Return random values of `shape`."""
        return float(np.sqrt(2 / fan_in)) * rng.standard_normal(shape)


@dataclass(frozen=True)
class Glorot:
    """Normal values of variance 2 / (fan_in + fan_out), for sigmoid and tanh (Glorot 2010)."""

    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], *, fan_in: int, fan_out: int
    ) -> NDArray[np.float64]:
        """Return random values of `shape`."""
        return float(np.sqrt(2 / (fan_in + fan_out))) * rng.standard_normal(shape)


def default_init(activation: str) -> Initializer:
    """Return the initializer for layers that are followed by `activation`."""
    return He() if activation == "relu" else Glorot()
