"""How initial weights are drawn.

Numbers are drawn on the host in float64 from one generator, and rounded to the network's dtype
afterwards. So the same seed gives the same weights on every backend.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Initialiser(Protocol):
    """A rule for initial values."""

    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], *, fan_in: int, fan_out: int
    ) -> NDArray[np.float64]:
        """Draw values of `shape`, float64.

        Args:
            rng: the source of randomness; a rule that needs none leaves it untouched.
            shape: of the parameter.
            fan_in: inputs that each output of the layer sums over.
            fan_out: outputs that each input of the layer takes part in.
        """


@dataclass(frozen=True)
class Zeros:
    """All values 0."""

    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], *, fan_in: int, fan_out: int
    ) -> NDArray[np.float64]:
        """Return zeros of `shape`."""
        return np.zeros(shape)


@dataclass(frozen=True)
class Normal:
    """Normal values of mean 0.

    Attributes:
        std: their standard deviation.
        output_major: fill a matrix (in, out) output by output, in the order in which programs draw
            that store it as (out, in).
    """

    std: float
    output_major: bool = False

    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], *, fan_in: int, fan_out: int
    ) -> NDArray[np.float64]:
        """Draw values of `shape`."""
        if self.output_major:
            return self.std * rng.standard_normal(shape[::-1]).T
        return self.std * rng.standard_normal(shape)


@dataclass(frozen=True)
class He:
    """Normal values of variance 2 / fan_in, for layers followed by ReLU (He et al. 2015)."""

    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], *, fan_in: int, fan_out: int
    ) -> NDArray[np.float64]:
        """Draw values of `shape`."""
        return float(np.sqrt(2 / fan_in)) * rng.standard_normal(shape)


@dataclass(frozen=True)
class Glorot:
    """Normal values of variance 2 / (fan_in + fan_out), for sigmoid and tanh (Glorot 2010)."""

    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], *, fan_in: int, fan_out: int
    ) -> NDArray[np.float64]:
        """Draw values of `shape`."""
        return float(np.sqrt(2 / (fan_in + fan_out))) * rng.standard_normal(shape)
