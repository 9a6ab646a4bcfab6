"""The data, the trainer and the number of steps of a run."""

import numpy as np
import pytest

from backends import get_backend
from mnist_accel.errors import UsageError
from mnist_accel.recipes.settings import resolve
from mnist_accel.runs.setup import load_run_data, make_trainer, total_steps

DIGITS = {"dataset": "digits", "backend": "numpy"}


def test_without_a_split_the_test_set_is_the_validation_set():
    data = load_run_data(resolve({**DIGITS, "limit_train": 60, "limit_test": 20}))
    assert (data.train_count, len(data.test[1]), data.validation_name) == (60, 20, "test")
    assert data.validation is data.test


def test_a_split_holds_out_training_images_and_keeps_the_test_set():
    whole = load_run_data(resolve({**DIGITS, "limit_train": 60}))
    split = load_run_data(resolve({**DIGITS, "limit_train": 60, "validation_split": 0.25}))
    assert (split.train_count, len(split.validation[1]), split.validation_name) == (
        45,
        15,
        "validation",
    )
    assert np.array_equal(split.test[0], whole.test[0])
    images = np.concatenate([split.train[0], split.validation[0]])
    assert sorted(image.tobytes() for image in images) == sorted(
        image.tobytes() for image in whole.train[0]
    )


def test_a_split_without_validation_images_is_refused():
    with pytest.raises(UsageError, match="cannot hold out"):
        load_run_data(resolve({**DIGITS, "validation_split": 1e-4}))


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"iterations": 7}, 7),
        ({"epochs": 3, "batch_size": 20, "sampling": "shuffle"}, 9),
        ({"epochs": 3, "batch_size": 20, "sampling": "replacement"}, 9),
        ({"epochs": 3, "sampling": "full"}, 3),
    ],
)
def test_total_steps_follow_from_iterations_or_epochs(given, steps):
    assert total_steps(resolve(given), examples=60) == steps


def test_default_batch_of_fcnn_is_the_whole_training_set():
    settings = resolve({**DIGITS, "model": "fcnn"})
    trainer = make_trainer(settings, get_backend("numpy"), examples=60)
    assert (trainer.batch_size, trainer.sampling) == (60, "full")
