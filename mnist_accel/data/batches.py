"""Which images each step sees.

The order of an epoch is a function of (seed, epoch) alone: it does not depend on the backend, nor
on how often the training was stopped and resumed, and there is no generator whose state must be
saved.
"""

from dataclasses import dataclass
from typing import TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from backends import MOST_EXAMPLES, ROUNDS, Order, OrderKind
from mnist_accel.util.ceil_div import ceil_div

Sampling: TypeAlias = OrderKind

# Streams of randomness that a seed is split into; each is a generator of its own.
_SHUFFLE, _DROPOUT, _SPLIT = 1, 2, 3


@dataclass(frozen=True)
class BatchSampler:
    """Cuts the epochs of a data set into batches.

    Attributes:
        examples: number of images in the data set, at least 1.
        batch_size: images a step, from 1 to less than 2³¹; the whole set where sampling is "full".
        sampling: "shuffle": every image once an epoch, in a new order, the last batch smaller where
            the numbers do not divide; "replacement": each batch drawn anew from the whole set, an
            epoch being as many whole batches as fit the set, at least one; "full": all images at
            every step, in their order.
        seed: of the order.
    """

    examples: int
    batch_size: int
    sampling: Sampling
    seed: int

    def __post_init__(self) -> None:
        if self.examples < 1:
            raise ValueError("training needs at least one image, got none")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.batch_size >= MOST_EXAMPLES:
            raise ValueError(f"batch_size must be less than {MOST_EXAMPLES}, got {self.batch_size}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")
        if self.sampling not in get_args(Sampling):
            raise ValueError(f"sampling must be one of {get_args(Sampling)}, got {self.sampling!r}")

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        if self.sampling == "full":
            return 1
        if self.sampling == "replacement":
            return max(1, self.examples // self.batch_size)
        return ceil_div(self.examples, self.batch_size)

    def order(self, epoch: int) -> Order:
        """Return the order in which epoch `epoch`, counted from 0, takes its images."""
        if self.sampling == "full":
            return Order(self.examples, "full")
        rng = np.random.default_rng((self.seed, _SHUFFLE, epoch))
        keys = rng.integers(2**32, size=ROUNDS, dtype=np.uint32)
        return Order(self.examples, self.sampling, tuple(keys.tolist()))

    def batch_bounds(self, first: int, count: int) -> NDArray[np.int64]:
        """Return where in the order of their epoch some steps begin and end, (count, 2).

        Args:
            first: of these steps, counted from 0 in their epoch.
            count: how many they are.
        """
        size = self.examples if self.sampling == "full" else self.batch_size
        starts = size * np.arange(first, first + count)
        ends = starts + size
        if self.sampling != "replacement":
            ends = np.minimum(ends, self.examples)
        return np.stack([starts, ends], axis=1)


def dropout_generator(seed: int, step: int) -> np.random.Generator:
    """Return the randomness of the dropout masks of one step."""
    return np.random.default_rng((seed, _DROPOUT, step))


def split_indices(
    examples: int, *, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split a data set at random.

    Args:
        examples: number of images.
        fraction: part to hold out, more than 0 and less than 1.
        seed: of the split.

    Returns:
        Rows to keep, and rows held out, each in ascending order.

    Raises:
        ValueError: the fraction is out of range, or leaves one side empty.
    """
    held_out = round(examples * fraction)
    if not 0 < fraction < 1 or not 0 < held_out < examples:
        raise ValueError(f"cannot hold out a part {fraction} of {examples} images")
    order = np.random.default_rng((seed, _SPLIT)).permutation(examples)
    return np.sort(order[held_out:]), np.sort(order[:held_out])
