"""The kernels at the beginning and the end of a chunk: image order and copies of the parameters."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from backends import SGD
from backends.numba.kernels import chunk
from backends.numba.layout import lay_out, multiplications, reads_input
from backends.order import ROUNDS, Order
from mnist_accel.recipes.models import RECIPES, create_model
from tests.support.compiled_training import NETWORKS, make_network

keys = st.tuples(*[st.integers(0, 2**32 - 1)] * ROUNDS)


@settings(deadline=None)  # the first example compiles the kernel
@given(examples=st.integers(1, 70_000), keys=keys, cut=st.tuples(st.floats(0, 1), st.floats(0, 1)))
@example(examples=1, keys=(0,) * ROUNDS, cut=(0.0, 1.0))
def test_shuffled_rows_equal_those_of_the_order(
    examples: int, keys: tuple[int, ...], cut: tuple[float, float]
) -> None:
    order = Order(examples, "shuffle", keys)
    begin, end = sorted(round(part * examples) for part in cut)
    end = min(end, begin + 500)
    rows, *buffers = np.empty((3, end - begin), np.int64)
    chunk.shuffled_rows(order.keys, order.bits, examples, begin, rows, *buffers)
    assert np.array_equal(rows, order.rows(begin, end))


def test_multiplications_of_an_image_are_counted() -> None:
    """One for each input and output of a linear layer, and each tap and output of a convolution."""
    program = create_model("two-layer", backend="numpy").training_program(SGD())
    assert multiplications(program) == 784 * 50 + 50 * 10
    program = create_model("lenet", backend="numpy").training_program(SGD())
    convolutions = 25 * 6 * 28 * 28 + 25 * 6 * 16 * 10 * 10
    assert multiplications(program) == convolutions + 400 * 120 + 120 * 84 + 84 * 10


@pytest.mark.parametrize("name", [*RECIPES, *NETWORKS])
def test_parameters_are_copied_to_their_packed_positions_and_back(name: str) -> None:
    model = create_model(name, backend="numpy") if name in RECIPES else make_network(name, "numpy")
    program = model.training_program(SGD())
    layout = lay_out(program, is_sparse=reads_input(program))
    vector = np.arange(1, program.parameters + 1, dtype=np.float32)
    packed = np.zeros(layout.packed_size, np.float32)
    chunk.copy_blocks(layout.packing, vector, packed)
    assert np.array_equal(packed[layout.positions], vector)
    assert np.count_nonzero(packed) == len(vector)
    copied = np.zeros_like(vector)
    chunk.copy_blocks(layout.unpacking, packed, copied)
    assert np.array_equal(copied, vector)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 16, 38])
def test_a_parameter_that_is_not_finite_is_found(place: int, value: float) -> None:
    weights = np.full(39, np.finfo(np.float32).max, np.float32)
    results = np.zeros((1, 1)), np.zeros((1, 1), np.int64)
    arguments = results, np.array([[0, 1]]), np.empty(1), np.empty(1, np.int64), weights
    assert chunk.sum_results(*arguments)
    weights[place] = value
    assert not chunk.sum_results(*arguments)


@pytest.mark.parametrize("value", [1.0, np.nan, np.inf, -np.inf])
def test_results_of_all_threads_are_summed_and_checked(value: float) -> None:
    sums = np.array([[1.0, 2.0, 0.0], [3.0, value, 0.0]])  # rows may have unused elements
    counts = np.array([[1, 2, 0], [3, 4, 0]])
    losses, correct = np.empty(2), np.empty(2, np.int64)
    bounds = np.array([[0, 4], [4, 6]])
    weights = np.zeros(1, np.float32)
    is_finite = chunk.sum_results((sums, counts), bounds, losses, correct, weights)
    assert is_finite == np.isfinite(value)
    assert np.array_equal(losses, [1.0, (2 + value) / 2], equal_nan=True)
    assert correct.tolist() == [4, 6]
