"""Losses and updates on every backend: extreme logits, and writes in place."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backends import LOSSES, SGD, AdaGrad, AdamW, Backend, RMSProp, UpdateRule

LABELS = np.array([0, 1, 2])
# Rows: correct; wrong; two largest logits equal. All margins are at least 1000.
LOGITS = np.array([[1000.0, -1000.0, 0.0], [1000.0, -1000.0, 0.0], [-1000.0, 1000.0, 1000.0]])
ONE_HOT = np.eye(3)
PROBABILITIES = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
OUTPUTS = np.array([[1.0, 0.0, 0.5], [1.0, 0.0, 0.5], [0.0, 1.0, 1.0]])
LOG2 = np.log(2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_and_sigmoid_are_accurate_for_large_logits(backend: Backend, dtype: str) -> None:
    logits = backend.asarray(LOGITS, dtype=dtype)
    log_probabilities = backend.to_numpy(backend.log_softmax(logits))
    expected = [[0, -2000, -1000], [0, -2000, -1000], [-2000 - LOG2, -LOG2, -LOG2]]
    np.testing.assert_allclose(log_probabilities, expected, rtol=1e-6)
    np.testing.assert_allclose(backend.to_numpy(backend.softmax(logits)), PROBABILITIES, rtol=1e-6)
    np.testing.assert_array_equal(backend.to_numpy(backend.activation("sigmoid", logits)), OUTPUTS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("loss", "value", "gradient"),
    [
        ("softmax_cross_entropy", 2000 + LOG2, PROBABILITIES - ONE_HOT),
        # Each logit of 0 adds log 2, each wrong logit z adds |z|.
        ("binary_cross_entropy", 2 * LOG2 + 3000, OUTPUTS - ONE_HOT),
        ("quadratic", 0.5 * (0.25 + (1 + 1 + 0.25) + 1), None),
    ],
)
def test_losses_are_accurate_for_large_logits(
    backend: Backend, dtype: str, loss: str, value: float, gradient: Any
) -> None:
    got = backend.loss(loss, backend.asarray(LOGITS, dtype=dtype), backend.asarray(LABELS))
    if gradient is None:  # nonzero only if the sigmoid does not saturate
        gradient = (OUTPUTS - ONE_HOT) * OUTPUTS * (1 - OUTPUTS)
    loss_value, dlogits = (backend.to_numpy(array) for array in got)
    assert loss_value.shape == ()
    assert float(loss_value) == pytest.approx(value / 3, rel=1e-6)
    np.testing.assert_allclose(dlogits, gradient / 3, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_nan_logit_makes_the_loss_nan(backend: Backend, loss: str) -> None:
    logits = backend.asarray(np.array([[0.0, np.nan, 1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]))
    targets = np.zeros((3, 3)) if LOSSES[loss].targets == "numbers" else LABELS
    value, _ = backend.loss(loss, logits, backend.asarray(targets))
    assert np.isnan(backend.to_numpy(value))


def test_correct_images_are_counted(backend: Backend) -> None:
    count = backend.count_correct(backend.asarray(LOGITS), backend.asarray(LABELS))
    # The first of two equal logits is the prediction.
    assert backend.to_numpy(count) == 1


@pytest.mark.parametrize(
    "rule",
    [SGD(), SGD(momentum=0.9, nesterov=True), AdaGrad(), RMSProp(), AdamW()],
    ids=lambda rule: rule.kind,
)
def test_update_writes_only_to_the_given_views(backend: Backend, rule: UpdateRule) -> None:
    rule = replace(rule, weight_decay=0.1)
    rows = 2 + len(rule.state_names)
    before = np.ones((rows, 10), "float32")
    before[1] = 2  # gradients differ from the running means
    storage = backend.asarray(before)
    weights, grads, *arrays = (storage[row, 3:7] for row in range(rows))
    state = dict(zip(rule.state_names, arrays, strict=True))
    assert backend.update(rule, weights, grads, state, lr=0.5, step=1) is None  # type: ignore[func-returns-value]
    after = backend.to_numpy(storage)
    expected = np.zeros(after.shape, bool)
    expected[:, 3:7] = True
    expected[1] = False  # gradients are only read
    np.testing.assert_array_equal(after != before, expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda backend, x: backend.loss("hinge", x, x), "unknown loss 'hinge'; choose from soft"),
        (lambda backend, x: backend.probabilities("hinge", x), "unknown loss 'hinge'"),
        (lambda backend, x: backend.activation("relo", x), "did you mean 'relu'"),
        (lambda backend, x: backend.activation_backward("relo", x, x), "did you mean 'relu'"),
    ],
)
def test_unknown_kinds_are_refused(backend: Backend, call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(backend, backend.zeros((2, 3), dtype="float32"))
