"""Which images each step uses.

The order of an epoch is a function of (seed, epoch) only. It depends neither on the backend nor on
interruptions of the training, and there is no generator state to save.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from backends import MAX_EXAMPLES, ROUNDS, Order, OrderPart, Steps, check_integer, check_name
from mnist_accel.util.ceil_div import ceil_div

Sampling: TypeAlias = Literal["shuffle", "replacement", "full", "sequential"]

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
            batches. "full": each step uses all images in their original order. "sequential": as
            "shuffle", but every epoch has the original order.
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

    @cached_property
    def steps_per_epoch(self) -> int:
        """Number of batches per epoch."""
        if self.sampling == "full":
            return 1
        if self.sampling == "replacement":
            return max(1, self.examples // self.batch_size)
        return ceil_div(self.examples, self.batch_size)

    @cached_property
    def images_per_step(self) -> int:
        """Number of images in a batch; the last batch of an epoch may be smaller."""
        if self.sampling == "full":
            return self.examples
        if self.sampling == "replacement":
            return self.batch_size
        return min(self.batch_size, self.examples)

    @cached_property
    def images_per_epoch(self) -> int:
        """Number of images in the batches of an epoch."""
        if self.sampling == "replacement":
            return self.steps_per_epoch * self.batch_size
        return self.examples

    def order(self, epoch: int) -> Order:
        """Return the image order of epoch `epoch`, counted from 0."""
        return _order(self.examples, self.sampling, self.seed, epoch)

    def steps(self, epoch: int, first: int, *, rates: NDArray[np.float64], before: int) -> Steps:
        """Return consecutive steps, as many as there are learning rates.

        Args:
            epoch: epoch of the first step, counted from 0; later steps may be in later epochs.
            first: the first step, counted from 0 in its epoch.
            rates: learning rate of each step, at least one.
            before: number of steps that the training has done already.
        """
        bounds = self._bounds(first, len(rates))
        begin = first * self.images_per_step
        end, size = begin + bounds.item(-1), self.images_per_epoch
        parts = tuple(
            [
                OrderPart(self.order(epoch + later), max(0, begin - zero), min(size, end - zero))
                for later, zero in enumerate(range(0, end, size))
            ]
        )
        return Steps(parts, bounds, rates, before, self.images_per_step)

    def _bounds(self, first: int, count: int) -> NDArray[np.int64]:
        """Return `Steps.bounds` of consecutive steps; arguments as `steps`."""
        size, length = self.images_per_step, self.steps_per_epoch
        if self.sampling == "full":
            return _even_bounds(count, size, 0)
        missing = length * size - self.images_per_epoch  # images of the last batch of an epoch
        if not missing or first + count < length:
            return _even_bounds(count, size, size)
        begins = np.arange(first * size, (first + count) * size + 1, size)
        begins -= np.arange(first, first + count + 1) // length * missing
        begins -= begins[0]
        return np.stack((begins[:-1], begins[1:]), axis=1)


@lru_cache(maxsize=2)  # of two trainings
def _even_bounds(count: int, size: int, distance: int) -> NDArray[np.int64]:
    """Return begin and end of batches of one size whose begins have one distance, (count, 2)."""
    return np.arange(count)[:, None] * distance + (0, size)


@lru_cache(maxsize=2)  # of the present epochs of two trainings
def _order(examples: int, sampling: Sampling, seed: int, epoch: int) -> Order:
    """Return the image order of an epoch, counted from 0."""
    if sampling == "full" or sampling == "sequential":
        return Order(examples, "full")
    return Order(examples, sampling, _round_keys(seed, epoch))


def _round_keys(seed: int, epoch: int) -> tuple[int, ...]:
    """Return the round keys of the image order of an epoch."""
    # The same as `default_rng((seed, _SHUFFLE, epoch)).integers(2**32, size=ROUNDS,
    # dtype=np.uint32)`, but in a quarter of the time.
    entropy = np.frombuffer(_words(seed) + _words(_SHUFFLE) + _words(epoch), "<u4")
    numbers = np.random.PCG64(entropy).random_raw(ROUNDS // 2)
    return tuple(numbers.astype("<u8").view("<u4").tolist())


def _words(number: int) -> bytes:
    """Return the 32-bit words of a number, the lowest first, as `SeedSequence` divides it."""
    words = max(1, ceil_div(number.bit_length(), 32))
    return number.to_bytes(4 * words, "little")


def dropout_generator(seed: int, step: int) -> np.random.Generator:
    """Return the random generator for the dropout masks of one step."""
    return np.random.default_rng((seed, _DROPOUT, step))


def split_indices(
    examples: int, *, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row numbers of a random split: rows to keep and rows to hold out, both ascending.

    Args:
        examples: number of examples.
        fraction: fraction of the examples to hold out, more than 0 and less than 1.
        seed: seed of the split.

    Raises:
        ValueError: the fraction is out of range, or one part would be empty.
    """
    held_out = round(examples * fraction)
    if not 0 < fraction < 1 or not 0 < held_out < examples:
        raise ValueError(
            f"cannot hold out a fraction {fraction} of {examples} examples: "
            "both parts need at least one"
        )
    order = np.random.default_rng((seed, _SPLIT)).permutation(examples)
    return np.sort(order[held_out:]), np.sort(order[:held_out])
