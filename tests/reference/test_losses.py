"""Losses of the reference against results computed by hand."""

import math

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

import reference as ref

Array = ref.Array


def test_softmax_cross_entropy_at_known_and_extreme_values() -> None:
    loss, dz = ref.softmax_cross_entropy(np.log([1.0, 2.0, 5.0]), 1)
    assert_allclose(loss, math.log(4))  # −log(2/8)
    assert_allclose(dz, [1 / 8, 2 / 8 - 1, 5 / 8])

    far = np.array([1000.0, -1000.0, 0.0])
    assert_array_equal(ref.softmax(far), [1, 0, 0])
    loss, dz = ref.softmax_cross_entropy(far, 0)
    assert loss == 0
    assert_array_equal(dz, [0, 0, 0])
    loss, dz = ref.softmax_cross_entropy(far, 1)
    assert loss == 2000
    assert_array_equal(dz, [1, -1, 0])
    loss, dz = ref.softmax_cross_entropy(np.array([-1000.0, -1000.0]), 0)
    assert_allclose(loss, math.log(2))
    assert_array_equal(dz, [-0.5, 0.5])


def test_binary_cross_entropy_at_known_and_extreme_values() -> None:
    loss, dz = ref.binary_cross_entropy(np.array([math.log(3), 0.0]), 0)
    assert_allclose(loss, math.log(4 / 3) + math.log(2))  # −log(3/4) − log(1 − 1/2)
    assert_allclose(dz, [-0.25, 0.5])

    far = np.array([1000.0, -1000.0])
    loss, dz = ref.binary_cross_entropy(far, 0)
    assert loss == 0
    assert_array_equal(dz, [0, 0])
    loss, dz = ref.binary_cross_entropy(far, 1)
    assert loss == 2000
    assert_array_equal(dz, [1, -1])


def test_quadratic_at_known_and_extreme_values() -> None:
    loss, dz = ref.quadratic(np.array([0.0, math.log(3)]), 0)
    assert_allclose(loss, 0.5 * (0.5**2 + 0.75**2))
    assert_allclose(dz, [-0.5 * 0.25, 0.75 * 0.1875])

    loss, dz = ref.quadratic(np.array([1000.0, -1000.0]), 1)
    assert loss == 1
    assert_array_equal(dz, [0, 0])
