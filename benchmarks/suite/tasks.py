"""Creates the training task of a case: its network, optimizer and images."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from backends import UpdateRule, create_optimizer
from benchmarks.contenders.base import TrainingTask
from benchmarks.suite.cases import AccuracyCase, TrainingCase
from mnist_accel.data import load_mnist
from mnist_accel.data.batches import split_indices
from mnist_accel.recipes.models import RECIPES

HELD_OUT = 0.1  # fraction of the training set on which time-to-accuracy runs are validated


def training_task(case: TrainingCase, steps: int) -> TrainingTask:
    """Return the task of a case on the first `steps` batches of the training set."""
    images, labels = training_set()
    rows = slice(0, steps * case.batch)
    return TrainingTask(
        model=case.model(),
        optimizer=recipe_optimizer(case.network),
        batch_size=case.batch,
        images=images[rows],
        labels=labels[rows],
        seed=0,
    )


def accuracy_task(
    case: AccuracyCase, seed: int
) -> tuple[TrainingTask, NDArray[np.uint8], NDArray[np.int64]]:
    """Return the training task of a case, and the images and labels for validation."""
    images, labels = training_set()
    kept, held_out = split_indices(len(images), fraction=HELD_OUT, seed=0)
    task = TrainingTask(
        model=case.model(seed),
        optimizer=recipe_optimizer(case.network, case.lr),
        batch_size=case.batch,
        images=images[kept],
        labels=labels[kept],
        seed=seed,
    )
    return task, images[held_out], labels[held_out]


def recipe_optimizer(network: str, lr: float | None = None) -> UpdateRule:
    """Return the optimizer of a recipe; `lr` replaces the learning rate of the recipe."""
    recipe = RECIPES[network]
    return create_optimizer(
        recipe.optimizer, lr=lr or recipe.lr, weight_decay=recipe.weight_decay or None
    )


def scaled_images(count: int) -> NDArray[np.float32]:
    """Return the first `count` training images, shape (count, 784), values 0…1."""
    return (training_set()[0][:count] / np.float32(255)).astype(np.float32)


@cache
def training_set() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return all images (60000, 784) and labels (60000,) of the training set."""
    images, labels = load_mnist(normalize=False)[0]
    return images, labels.astype(np.int64)
