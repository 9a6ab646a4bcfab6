"""Initializers: the rules for initial weights.

Numbers are drawn on the host in float64 from one generator and then rounded to the dtype of the
network. So the same seed gives the same weights on every backend.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends import Shape, check_boolean, check_non_negative

# Called with a random generator and the shape of a parameter; returns its initial values.
Initializer: TypeAlias = Callable[[np.random.Generator, Shape], NDArray[np.float64]]


@dataclass(frozen=True)
class Zeros:
    """All values 0; no numbers are drawn."""

    def __call__(self, rng: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
        """Return zeros of `shape`."""
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

    def __post_init__(self) -> None:
        check_non_negative(self, "std")
        check_boolean(self, "output_major")

    def __call__(self, rng: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
        """Return random values of `shape`."""
        if self.output_major:
            return self.std * rng.standard_normal(shape[::-1]).T
        return self.std * rng.standard_normal(shape)


@dataclass(frozen=True)
class He:
    """Normal values of variance 2 / fan_in, for layers followed by ReLU (He et al. 2015)."""

    def __call__(self, rng: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
        """Return random values of `shape`."""
        fan_in, _ = _fans(shape)
        return math.sqrt(2 / fan_in) * rng.standard_normal(shape)


@dataclass(frozen=True)
class Glorot:
    """Normal values of variance 2 / (fan_in + fan_out), for sigmoid and tanh (Glorot 2010)."""

    def __call__(self, rng: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
        """Return random values of `shape`."""
        return math.sqrt(2 / sum(_fans(shape))) * rng.standard_normal(shape)


def default_init(activation: str) -> Initializer:
    """Return the initializer for layers that are followed by `activation`."""
    return He() if activation == "relu" else Glorot()


def _fans(shape: Shape) -> tuple[int, int]:
    """Return fan_in and fan_out of a matrix (in, out) or of filters (out, in, kh, kw).

    fan_in is the number of terms that each output sums, fan_out the number of outputs that each
    input contributes to.
    """
    match shape:
        case n_in, n_out:
            return n_in, n_out
        case n_out, n_in, kh, kw:
            return n_in * kh * kw, n_out * kh * kw
    raise ValueError(f"He and Glorot initialize matrices and filters, got the shape {shape}")
