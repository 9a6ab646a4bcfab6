"""The image order: statistics of its shuffles, and equality of the NumPy and CUDA versions."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.cupy.launch.images import image_order
from backends.cupy.launch.launcher import Launcher
from backends.cupy.loader import Kernels
from backends.order import ROUNDS, Order
from mnist_accel.data.batches import BatchSampler
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import Emulator

EPOCHS = 200
IMAGES = 60_000
keys = st.tuples(*[st.integers(0, 2**32 - 1)] * ROUNDS)


def epoch(number, *, examples=IMAGES, kind="shuffle"):
    return BatchSampler(examples, 1, kind, seed=0).order(number)


@given(examples=st.integers(1, 5000), keys=keys)
def test_shuffle_contains_every_row_once(examples, keys):
    rows = Order(examples, "shuffle", keys).rows(0, examples)
    assert sorted(rows) == list(range(examples))


@pytest.mark.parametrize("kind", ["shuffle", "replacement", "full"])
@given(keys=keys, cut=st.lists(st.integers(0, 300), min_size=2, max_size=2))
def test_part_of_an_order_equals_a_slice_of_the_whole_order(kind, keys, cut):
    order = Order(300, kind, () if kind == "full" else keys)
    begin, end = sorted(cut)
    assert np.array_equal(order.rows(begin, end), order.rows(0, 300)[begin:end])


def test_order_of_a_seed_never_changes():
    """A later version of the project must reproduce the trainings of an earlier version."""
    assert epoch(0).rows(0, 5).tolist() == [33464, 34709, 20898, 19580, 46280]
    assert epoch(0, kind="replacement").rows(0, 5).tolist() == [5024, 2126, 37056, 49018, 51142]


# Pearson's chi-squared statistic measures the quality of the shuffle. Its mean over many epochs
# must be within five standard errors of the degrees of freedom. With two rounds of the Feistel
# network, it is outside.


def chi_squared(counts):
    """Return chi-squared of counts that have the same expectation."""
    expected = counts.mean()
    return ((counts - expected) ** 2).sum() / expected


def positions(rows):
    """Return chi-squared of the pairs of position and row, in 20×20 bins."""
    return chi_squared(np.histogram2d(np.arange(len(rows)), rows, bins=20)[0])


def first_batch(rows):
    """Return chi-squared of the rows in the first batch of 512, in 16 bins."""
    return chi_squared(np.histogram(rows[:512], bins=16, range=(0, IMAGES))[0])


def distances(rows):
    """Return chi-squared of the differences between consecutive rows, in 64 bins."""
    return chi_squared(np.histogram(np.diff(rows) % IMAGES, bins=64)[0])


def pairs(rows):
    """Return chi-squared of disjoint pairs of consecutive rows, in 16×16 bins."""
    return chi_squared(np.histogram2d(rows[:-1:2], rows[1::2], bins=16)[0])


# Degrees of freedom of each statistic. Each fixed sum of counts removes one. A shuffle fixes more
# sums than drawing with replacement, because it contains every row once.
SHUFFLED = {positions: 19 * 19, first_batch: 15, distances: 63, pairs: 16 * 15}
DRAWN = {positions: 20 * 19, first_batch: 15, distances: 63, pairs: 16 * 16 - 1}


def excess(statistic, freedom, orders):
    """Return the deviation of the mean statistic from its expectation, in standard errors."""
    values = [statistic(order.rows(0, IMAGES)) for order in orders]
    return (np.mean(values) - freedom) / np.sqrt(2 * freedom / len(values))


@given(seed=st.integers(0, 2**100), number=st.integers(0, 2**40))
def test_the_keys_of_an_epoch_are_random_numbers_of_numpy(seed, number):
    numbers = np.random.default_rng((seed, 1, number)).integers(2**32, size=ROUNDS, dtype=np.uint32)
    assert BatchSampler(10, 1, "shuffle", seed).order(number).keys == tuple(numbers.tolist())


@pytest.mark.parametrize(("statistic", "freedom"), SHUFFLED.items())
def test_shuffled_epochs_pass_chi_squared_tests(statistic, freedom):
    assert abs(excess(statistic, freedom, map(epoch, range(EPOCHS)))) < 5


@pytest.mark.parametrize("statistic", [positions, distances, pairs])
def test_chi_squared_tests_fail_with_two_rounds(statistic, monkeypatch):
    keys_of_epochs = [epoch(number).keys[:2] for number in range(20)]
    monkeypatch.setattr("backends.order.ROUNDS", 2)
    orders = [Order(IMAGES, "shuffle", keys) for keys in keys_of_epochs]
    assert excess(statistic, SHUFFLED[statistic], orders) > 5


@pytest.mark.parametrize(("statistic", "freedom"), DRAWN.items())
def test_draws_with_replacement_pass_chi_squared_tests(statistic, freedom):
    orders = [epoch(number, kind="replacement") for number in range(EPOCHS)]
    assert abs(excess(statistic, freedom, orders)) < 5


def test_consecutive_epochs_are_independent():
    orders = [epoch(number).rows(0, IMAGES) for number in range(EPOCHS)]
    same = [np.count_nonzero(one == other) for one, other in pairwise(orders)]
    assert np.mean(same) == pytest.approx(1, abs=5 / np.sqrt(EPOCHS))  # Poisson, with mean 1


# ------------------------------------------------------------------------------- CUDA kernel


@pytest.mark.emulated
@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["shuffle", "replacement", "full"]),
    keys=keys,
    examples=st.one_of(st.integers(1, 300), st.integers(2**30, 2**31 - 1)),
    first=st.integers(0, 200),
    count=st.integers(1, 100),
)
def test_kernel_computes_the_same_rows_as_numpy(kind, keys, examples, first, count):
    order = Order(examples, kind, () if kind == "full" else keys)
    first = min(first, examples - 1)
    count = min(count, examples - first)
    rows = np.full(count + 1, -7, np.int32)
    launcher = Launcher(Kernels(EmulatedCupy(Emulator())), "float32")
    image_order(launcher, order, first, rows[:-1])
    assert np.array_equal(rows[:-1], order.rows(first, first + count))
    assert rows[-1] == -7


@pytest.mark.parametrize(
    ("examples", "kind", "keys", "message"),
    [
        (10, "shuffle", (1, 2), "6 keys, got 2"),
        (10, "full", (1,) * 6, "0 keys, got 6"),
        (10, "sorted", (), "got 'sorted'"),
        (0, "full", (), "1 to 2147483647 images, got 0"),
        (2**31, "full", (), "got 2147483648"),
    ],
)
def test_invalid_orders_are_refused(examples, kind, keys, message):
    with pytest.raises(ValueError, match=message):
        Order(examples, kind, keys)


def test_positions_outside_the_order_are_refused():
    with pytest.raises(ValueError, match="positions 0 to 10, got 3 to 11"):
        epoch(0, examples=10).rows(3, 11)
    launcher = Launcher(Kernels(None), "float32")
    with pytest.raises(ValueError, match="got -1 to 3"):
        image_order(launcher, epoch(0, examples=10), -1, np.empty(4, np.int32))
    assert len(epoch(0, examples=10, kind="replacement").rows(3, 100)) == 97
