"""The formula of the order of images: it shuffles, and it is the same on a GPU."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.cupy.launch.launches import Launches
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
def test_a_shuffle_has_every_row_once(examples, keys):
    rows = Order(examples, "shuffle", keys).rows(0, examples)
    assert sorted(rows) == list(range(examples))


@pytest.mark.parametrize("kind", ["shuffle", "replacement", "full"])
@given(keys=keys, cut=st.lists(st.integers(0, 300), min_size=2, max_size=2))
def test_a_part_is_that_of_the_whole(kind, keys, cut):
    order = Order(300, kind, () if kind == "full" else keys)
    begin, end = sorted(cut)
    assert np.array_equal(order.rows(begin, end), order.rows(0, 300)[begin:end])


def test_the_order_of_a_seed_stays_what_it_is():
    """Trainings are repeated with later versions, too."""
    assert epoch(0).rows(0, 5).tolist() == [33464, 34709, 20898, 19580, 46280]
    assert epoch(0, kind="replacement").rows(0, 5).tolist() == [5024, 2126, 37056, 49018, 51142]


# Whether it is a good shuffle: Pearson's chi squared of many epochs, whose mean is to be within
# five standard errors of its degrees of freedom. Too few rounds show that this can fail.


def squares(counts):
    """Return chi squared of counts that should be alike."""
    expected = counts.mean()
    return ((counts - expected) ** 2).sum() / expected


def places(rows):
    """Where in the epoch images of each part of the set come."""
    return squares(np.histogram2d(np.arange(len(rows)), rows, bins=20)[0])


def first_batch(rows):
    """What the first batch is made of."""
    return squares(np.histogram(rows[:512], bins=16, range=(0, IMAGES))[0])


def distances(rows):
    """How far it is from an image to the next one."""
    return squares(np.histogram(np.diff(rows) % IMAGES, bins=64)[0])


def pairs(rows):
    """Which images come one after the other."""
    return squares(np.histogram2d(rows[:-1:2], rows[1::2], bins=16)[0])


# Every image comes once: sums that are fixed leave fewer degrees of freedom than there are counts.
SHUFFLED = {places: 19 * 19, first_batch: 15, distances: 63, pairs: 16 * 15}
DRAWN = {places: 20 * 19, first_batch: 15, distances: 63, pairs: 16 * 16 - 1}


def excess(statistic, freedom, orders):
    """Return by how many standard errors the mean of a statistic is more than by chance."""
    values = [statistic(order.rows(0, IMAGES)) for order in orders]
    return (np.mean(values) - freedom) / np.sqrt(2 * freedom / len(values))


@pytest.mark.parametrize(("statistic", "freedom"), SHUFFLED.items())
def test_epochs_are_shuffled_as_by_chance(statistic, freedom):
    assert abs(excess(statistic, freedom, map(epoch, range(EPOCHS)))) < 5


@pytest.mark.parametrize("statistic", [places, distances, pairs])
def test_too_few_rounds_would_be_noticed(statistic, monkeypatch):
    keys_of_epochs = [epoch(number).keys[:2] for number in range(20)]
    monkeypatch.setattr("backends.order.ROUNDS", 2)
    orders = [Order(IMAGES, "shuffle", keys) for keys in keys_of_epochs]
    assert excess(statistic, SHUFFLED[statistic], orders) > 5


@pytest.mark.parametrize(("statistic", "freedom"), DRAWN.items())
def test_draws_are_as_by_chance(statistic, freedom):
    orders = [epoch(number, kind="replacement") for number in range(EPOCHS)]
    assert abs(excess(statistic, freedom, orders)) < 5


def test_two_epochs_have_nothing_in_common():
    orders = [epoch(number).rows(0, IMAGES) for number in range(EPOCHS)]
    same = [np.count_nonzero(one == other) for one, other in pairwise(orders)]
    assert np.mean(same) == pytest.approx(1, abs=5 / np.sqrt(EPOCHS))  # Poisson, with mean 1


# On the GPU


@pytest.mark.emulated
@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["shuffle", "replacement", "full"]),
    keys=keys,
    examples=st.one_of(st.integers(1, 300), st.integers(2**30, 2**31 - 1)),
    first=st.integers(0, 200),
    count=st.integers(1, 100),
)
def test_the_kernel_computes_the_same(kind, keys, examples, first, count):
    order = Order(examples, kind, () if kind == "full" else keys)
    first = min(first, examples - 1)
    count = min(count, examples - first)
    rows = np.full(count + 1, -7, np.int32)
    Launches(Kernels(EmulatedCupy(Emulator())), "float32").order(order, first, rows[:-1])
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
def test_orders_that_make_no_sense_are_refused(examples, kind, keys, message):
    with pytest.raises(ValueError, match=message):
        Order(examples, kind, keys)


def test_positions_that_an_order_does_not_have_are_refused():
    with pytest.raises(ValueError, match="positions 0 to 10, got 3 to 11"):
        epoch(0, examples=10).rows(3, 11)
    with pytest.raises(ValueError, match="got -1 to 3"):
        Launches(Kernels(None), "float32").order(epoch(0, examples=10), -1, np.empty(4, np.int32))
    assert len(epoch(0, examples=10, kind="replacement").rows(3, 100)) == 97
