"""Which images each step uses.

The order of an epoch is a function of (seed, epoch) only. It depends neither on the backend nor on
interruptions of the training, and there is no generator state to save.
"""

from dataclasses import dataclass
from typing import TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from backends import MAX_EXAMPLES, ROUNDS, Order, OrderKind, check_integer, check_name
from mnist_accel.util.ceil_div import ceil_div

Sampling: TypeAlias = OrderKind

# Each use of randomness seeds its own generator with (seed, one of these, ...).
_SHUFFLE, _DROPOUT, _SPLIT = 1, 2, 3


@dataclass(frozen=True)
class BatchSampler:
    """Divides the epochs of a data set into batches.

    Attributes:
        examples: number of images in the data set, at least 1.
        batch_size: images per step, at least 1 and less than 2³¹. Ignored if sampling is "full".
        sampling: "shuffle": each epoch visits every image once in a new order, and its last batch
            is smaller if batch_size does not divide examples. "replacement": each batch is drawn
            from the whole set with replacement, and an epoch has max(1, examples // batch_size)
            batches. "full": each step uses all images in their original order.
        seed: seed of the image order.
    """

    examples: int
    batch_size: int
    sampling: Sampling
    seed: int

    def __post_init__(self) -> None:
        check_integer(self, "examples", at_least=1)
        check_integer(self, "batch_size", at_least=1)
        check_integer(self, "seed", at_least=0)
        if self.batch_size >= MAX_EXAMPLES:
            raise ValueError(f"batch_size must be less than {MAX_EXAMPLES}, got {self.batch_size}")
        check_name(self, "sampling", "sampling", get_args(Sampling))

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches per epoch."""
        if self.sampling == "full":
            return 1
        if self.sampling == "replacement":
            return max(1, self.examples // self.batch_size)
        return ceil_div(self.examples, self.batch_size)

    def order(self, epoch: int) -> Order:
        """Return the image order of epoch `epoch`, counted from 0."""
        if self.sampling == "full":
            return Order(self.examples, "full")
        rng = np.random.default_rng((self.seed, _SHUFFLE, epoch))
        keys = rng.integers(2**32, size=ROUNDS, dtype=np.uint32)
        return Order(self.examples, self.sampling, tuple(keys.tolist()))

    def batch_bounds(self, first: int, count: int) -> NDArray[np.int64]:
        """Return begin and end of consecutive batches in the order of their epoch, (count, 2).

        Args:
            first: the first step, counted from 0 in its epoch.
            count: number of steps.
        """
        size = self.examples if self.sampling == "full" else self.batch_size
        starts = size * np.arange(first, first + count)
        ends = starts + size
        if self.sampling != "replacement":
            ends = np.minimum(ends, self.examples)
        return np.stack([starts, ends], axis=1)


def dropout_generator(seed: int, step: int) -> np.random.Generator:
    """Return the random generator for the dropout masks of one step."""
    return np.random.default_rng((seed, _DROPOUT, step))


def split_indices(
    examples: int, *, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row numbers of a random split: rows to keep and rows to hold out, both ascending.

    Args:
        examples: number of images.
        fraction: fraction of the images to hold out, more than 0 and less than 1.
        seed: seed of the split.

    Raises:
        ValueError: the fraction is out of range, or one part would be empty.
    """
    held_out = round(examples * fraction)
    if not 0 < fraction < 1 or not 0 < held_out < examples:
        raise ValueError(
            f"cannot hold out a fraction {fraction} of {examples} images: "
            "both parts need at least one image"
        )
    order = np.random.default_rng((seed, _SPLIT)).permutation(examples)
    return np.sort(order[held_out:]), np.sort(order[:held_out])
