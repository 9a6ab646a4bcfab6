"""A network that is no better than guessing is reported, with advice on the learning rate."""

import numpy as np
import pytest

from mnist_accel.recipes.settings import resolve
from mnist_accel.runs.guessing import MIN_STEPS, GuessingWarning, advice, is_guessing
from mnist_accel.training.progress import EpochReport

LABELS = np.repeat(np.arange(10), 100)
DEFAULT_LR = resolve({}).lr


@pytest.mark.parametrize(
    ("accuracy", "guessing"), [(0.0, True), (0.1, True), (0.118, True), (0.13, False), (0.9, False)]
)
def test_accuracies_near_that_of_a_constant_answer_are_guessing(accuracy, guessing):
    assert is_guessing(accuracy, LABELS) == guessing


def test_the_most_frequent_label_counts():
    mostly_ones = np.array([1] * 90 + [0] * 10)
    assert is_guessing(0.9, mostly_ones)
    assert not is_guessing(0.99, mostly_ones)


@pytest.mark.parametrize(
    ("lr", "steps", "says"),
    [
        (10 * DEFAULT_LR, MIN_STEPS, f"try a smaller --lr, such as the default {DEFAULT_LR:g}"),
        (DEFAULT_LR / 100, MIN_STEPS, f"try a larger --lr, such as the default {DEFAULT_LR:g}"),
        (DEFAULT_LR, MIN_STEPS, "try a smaller --lr"),
        (DEFAULT_LR, MIN_STEPS - 1, "train for more --epochs"),
    ],
)
def test_the_advice_depends_on_the_default_learning_rate(lr, steps, says):
    assert advice(resolve({"lr": lr}), steps=steps).startswith(says)


class AtStep:
    """A trainer at a step."""

    def __init__(self, step):
        self.step = step


def test_a_training_is_warned_once_and_only_after_enough_steps():
    warnings = []
    callback = GuessingWarning(resolve({"lr": 9.0}), LABELS, warnings.append)
    for epoch, (step, accuracy) in enumerate(
        [(100, 0.1), (200, None), (300, 0.5), (400, 0.1), (500, 0.1)], start=1
    ):
        report = EpochReport(epoch, step, 2.3, 0.1, 1e5, validation_accuracy=accuracy)
        callback.on_epoch(AtStep(step), report)
    assert warnings == [
        "after epoch 4, the network is no better than guessing; "
        f"try a smaller --lr, such as the default {DEFAULT_LR:g}"
    ]
