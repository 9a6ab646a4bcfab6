"""Layers and activations of the reference against results computed by hand."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import reference as ref

Array = ref.Array


def test_linear_at_known_values() -> None:
    W, b = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), np.array([0.5, 0.0, -1.0])
    assert_array_equal(ref.linear(np.array([1.0, -1.0]), W, b), [-2.5, -3.0, -4.0])


def test_conv2d_at_known_values() -> None:
    x = np.array([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]])
    filters = np.array([[[[1.0, 2.0], [3.0, 4.0]]], [[[0.0, 1.0], [0.0, 0.0]]]])
    bias = np.array([0.0, 10.0])
    # 1·1 + 2·2 + 3·4 + 4·5 = 37: the filter is not flipped.
    assert_array_equal(ref.conv2d(x, filters, bias), [[[37, 47], [67, 77]], [[12, 13], [15, 16]]])
    assert_array_equal(ref.conv2d(x, filters[:1], None, stride=2, padding=1), [[[4, 18], [36, 77]]])


def test_conv2d_sums_over_input_channels() -> None:
    x = np.array([[[2.0]], [[3.0]]])
    filters = np.array([[[[10.0]], [[100.0]]]])
    assert_array_equal(ref.conv2d(x, filters, None), [[[320.0]]])


TIED = np.array([[[5.0, 5.0, 0.0, 1.0], [2.0, 5.0, 3.0, 3.0]]])


@pytest.mark.parametrize(
    ("ties", "expected"),
    [
        ("first", [[[10, 0, 0, 0], [0, 0, 7, 0]]]),
        ("all", [[[10, 10, 0, 0], [0, 10, 7, 7]]]),
    ],
)
def test_max_pool2d_ties(ties: str, expected: list[list[list[float]]]) -> None:
    assert_array_equal(ref.max_pool2d(TIED), [[[5, 3]]])
    dy = np.array([[[10.0, 7.0]]])
    assert_array_equal(ref.max_pool2d_backward(dy, TIED, ties=ties), expected)


@pytest.mark.parametrize("value", [0.0, -0.5])
def test_max_pool2d_of_all_equal_patches(value: float) -> None:
    x, dy = np.full((1, 2, 4), value), np.array([[[1.0, 2.0]]])
    assert_array_equal(ref.max_pool2d(x), [[[value, value]]])
    assert_array_equal(ref.max_pool2d_backward(dy, x, ties="first"), [[[1, 0, 2, 0], [0, 0, 0, 0]]])
    assert_array_equal(ref.max_pool2d_backward(dy, x, ties="all"), [[[1, 1, 2, 2], [1, 1, 2, 2]]])


def test_max_pool2d_first_is_row_major() -> None:
    x, dy = np.array([[[0.0, 4.0], [4.0, 0.0]]]), np.array([[[1.0]]])
    assert_array_equal(ref.max_pool2d_backward(dy, x, ties="first"), [[[0, 1], [0, 0]]])


@pytest.mark.parametrize(
    ("ties", "expected"),
    [
        ("first", [[[0, 0, 0], [0, 3, 0], [0, 0, 0]]]),
        ("all", [[[0, 0, 0], [0, 3, 2], [0, 0, 0]]]),
    ],
)
def test_max_pool2d_overlapping_patches_add_up(
    ties: str, expected: list[list[list[float]]]
) -> None:
    x = np.array([[[0.0, 1.0, 0.0], [0.0, 9.0, 9.0], [0.0, 0.0, 0.0]]])
    dy = np.array([[[1.0, 2.0], [0.0, 0.0]]])
    assert_array_equal(ref.max_pool2d_backward(dy, x, 2, 1, ties), expected)


def test_pooling_drops_an_odd_row_and_column() -> None:
    x = np.array([[[1.0, 2.0, 99.0], [3.0, 4.0, 99.0], [99.0, 99.0, 99.0]]])
    dy = np.array([[[8.0]]])
    assert_array_equal(ref.max_pool2d(x), [[[4.0]]])
    assert_array_equal(ref.max_pool2d_backward(dy, x), [[[0, 0, 0], [0, 8, 0], [0, 0, 0]]])
    assert_array_equal(ref.avg_pool2d(x), [[[2.5]]])
    assert_array_equal(ref.avg_pool2d_backward(dy, x), [[[2, 2, 0], [2, 2, 0], [0, 0, 0]]])


def test_unknown_tie_rule_is_rejected() -> None:
    with pytest.raises(ValueError, match="'last'"):
        ref.max_pool2d_backward(np.ones((1, 1, 1)), np.ones((1, 2, 2)), ties="last")


def test_relu_passes_no_gradient_at_zero() -> None:
    x = np.array([-1.0, 0.0, -0.0, 2.0])
    assert_array_equal(ref.relu(x), [0, 0, 0, 2])
    assert_array_equal(ref.relu_backward(np.full(4, 3.0), x), [0, 0, 0, 3])


def test_sigmoid_at_known_and_extreme_values() -> None:
    x = np.array([0.0, math.log(3), -math.log(3), 1000.0, -1000.0])
    assert_allclose(ref.sigmoid(x), [0.5, 0.75, 0.25, 1.0, 0.0], rtol=1e-15)
    assert_allclose(
        ref.sigmoid_backward(np.ones(5), x), [0.25, 0.1875, 0.1875, 0.0, 0.0], rtol=1e-15
    )
    assert_allclose(ref.sigmoid(np.array([-100.0])), [math.exp(-100)], rtol=1e-14)
