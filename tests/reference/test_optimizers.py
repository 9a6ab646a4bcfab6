"""Optimizers and schedules of the reference against results computed by hand."""

import math
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import reference as ref

Array = ref.Array


def two_steps(name: str, **options: float) -> list[float]:
    """Return w after each of two steps from 1, with lr 0.1 and the gradients 2 and −1."""
    weights = {"W1": np.array([1.0])}
    state: dict[str, ref.Past] = {}
    seen = []
    for t, g in enumerate((2.0, -1.0), start=1):
        gradients = {"W1": np.array([g])}
        weights, state = ref.update(name, weights, gradients, state, lr=0.1, t=t, **options)
        seen.append(float(weights["W1"][0]))
    return seen


@pytest.mark.parametrize(
    ("name", "weight_decay", "expected"),
    [
        ("sgd", 0.0, [0.8, 0.9]),
        # g = 2 + 0.5·1 = 2.5, then −1 + 0.5·0.75 = −0.625
        ("sgd", 0.5, [0.75, 0.8125]),
        # v = 2, then 0.9·2 − 1 = 0.8
        ("momentum", 0.0, [0.8, 0.72]),
        # v = 2.5, then 0.9·2.5 + (−1 + 0.375) = 1.625
        ("momentum", 0.5, [0.75, 0.5875]),
        # 2 + 0.9·2 = 3.8, then −1 + 0.9·0.8 = −0.28
        ("nesterov", 0.0, [0.62, 0.648]),
        # 2.5 + 0.9·2.5 = 4.75; then g = −1 + 0.2625, v = 2.25 + g, g + 0.9·v = 0.62375
        ("nesterov", 0.5, [0.525, 0.462625]),
        # s = 4, then 5
        ("adagrad", 0.0, [0.9, 0.9 + 0.1 / math.sqrt(5)]),
        # g = 2.5, then −1 + 0.45 = −0.55
        ("adagrad", 0.5, [0.9, 0.9 + 0.055 / math.sqrt(2.5**2 + 0.55**2)]),
        # s = 0.01·4, then 0.99·0.04 + 0.01
        ("rmsprop", 0.0, [0.0, 0.1 / math.sqrt(0.0496)]),
        # s = 0.01·2.5², √s = 0.25, w = 0; then g = −1 and s = 0.99·0.0625 + 0.01
        ("rmsprop", 0.5, [0.0, 0.1 / math.sqrt(0.071875)]),
        # m̂ = 2, v̂ = 4; then m = 0.08, v = 0.004996
        ("adam", 0.0, [0.9, 0.9 - 0.1 * (0.08 / 0.19) / math.sqrt(0.004996 / 0.001999)]),
        # g = 2.5, then −1 + 0.45 = −0.55; m = 0.17, v = 0.00624375 + 0.0003025
        ("adam", 0.5, [0.9, 0.9 - 0.1 * (0.17 / 0.19) / math.sqrt(0.00654625 / 0.001999)]),
        ("adamw", 0.0, [0.9, 0.9 - 0.1 * (0.08 / 0.19) / math.sqrt(0.004996 / 0.001999)]),
        # 1·0.95 − 0.1; then 0.85·0.95 and Adam's step with the undecayed gradients
        ("adamw", 0.5, [0.85, 0.8075 - 0.1 * (0.08 / 0.19) / math.sqrt(0.004996 / 0.001999)]),
    ],
)
def test_optimizers_at_known_values(name: str, weight_decay: float, expected: list[float]) -> None:
    assert_allclose(two_steps(name, weight_decay=weight_decay), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "gradient", "step"),
    [
        ("adagrad", 1e-10, 0.1 / 2),  # g/(g + 1e-10)
        ("rmsprop", 1e-7, 0.1 * 10 / 2),  # g/(0.1·g + 1e-8)
        ("adam", 1e-8, 0.1 / 2),  # g/(g + 1e-8)
        ("adamw", 1e-8, 0.1 / 2),
    ],
)
def test_eps_is_added_outside_the_root(name: str, gradient: float, step: float) -> None:
    weights, gradients = {"W1": np.array([1.0])}, {"W1": np.array([gradient])}
    new, _ = ref.update(name, weights, gradients, {}, lr=0.1, t=1)
    assert_allclose(new["W1"], [1 - step], rtol=1e-9)


@pytest.mark.parametrize("name", ref.OPTIMIZERS)
def test_optimizers_treat_parameters_separately_and_do_not_change_their_input(name: str) -> None:
    weights = {"W1": np.array([[1.0, 2.0]]), "b1": np.array([3.0])}
    gradients = {"W1": np.array([[2.0, 0.0]]), "b1": np.array([-2.0])}
    state: dict[str, ref.Past] = {}
    new, _ = ref.update(name, weights, gradients, state, lr=0.1, t=1)
    assert new["W1"][0, 0] < 1
    assert new["W1"][0, 1] == 2
    assert new["b1"][0] > 3
    assert_array_equal(weights["W1"], [[1, 2]])
    assert_array_equal(weights["b1"], [3])
    assert state == {}


@pytest.mark.parametrize(
    ("schedule", "total_steps", "expected"),
    [
        (ref.constant_lr, 4, [1, 1, 1, 1]),
        (partial(ref.step_lr, every=2, gamma=0.5), 5, [1, 1, 0.5, 0.5, 0.25]),
        (ref.cosine_lr, 4, [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]),
        # Warm-up over 3 of 10 steps: 0.04 + 0.96·step/3; then 6 steps down by half a cosine.
        (
            ref.one_cycle_lr,
            10,
            [
                0.04,
                0.36,
                0.68,
                1.0,
                4e-6 + (1 - 4e-6) * (0.5 + 0.25 * math.sqrt(3)),
                4e-6 + (1 - 4e-6) * 0.75,
                4e-6 + (1 - 4e-6) * 0.5,
                4e-6 + (1 - 4e-6) * 0.25,
                4e-6 + (1 - 4e-6) * (0.5 - 0.25 * math.sqrt(3)),
                4e-6,
            ],
        ),
    ],
)
def test_schedules_at_known_values(
    schedule: ref.Schedule, total_steps: int, expected: list[float]
) -> None:
    rates = [schedule(step, total_steps, 3.0) for step in range(total_steps)]
    assert_allclose(rates, 3.0 * np.array(expected), rtol=1e-12)
