"""Creates the training task of a case: its network, optimizer and images."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.base import TrainingTask
from benchmarks.suite.cases import AccuracyCase, TrainingCase
from benchmarks.suite.networks import optimizer_of
from mnist_accel.data import load_mnist
from mnist_accel.data.batches import split_indices

HELD_OUT = 0.1  # fraction of the training set on which time-to-accuracy runs are validated
_INK = 0.55  # fraction of pixels that are not 0; Fashion-MNIST is about as full
_CLASSES = 10


def training_task(case: TrainingCase, steps: int) -> TrainingTask:
    """Return the task of a case on the first `steps` batches of its data."""
    images, labels = _examples(case)
    rows = slice(0, steps * case.batch)
    return TrainingTask(
        model=case.model(),
        optimizer=optimizer_of(case.network),
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
        optimizer=optimizer_of(case.network, case.lr),
        batch_size=case.batch,
        images=images[kept],
        labels=labels[kept],
        seed=seed,
    )
    return task, images[held_out], labels[held_out]


def scaled_images(count: int) -> NDArray[np.float32]:
    """Return the first `count` training images, shape (count, 784), values 0…1."""
    return (training_set()[0][:count] / np.float32(255)).astype(np.float32)


@cache
def training_set() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return all images (60000, 784) and labels (60000,) of the training set."""
    images, labels = load_mnist(normalize=False)[0]
    return images, labels.astype(np.int64)


def _examples(case: TrainingCase) -> tuple[NDArray[Any], NDArray[np.int64]]:
    if case.images == "mnist":
        return training_set()
    if case.images == "full":
        return _full_images()
    return _dense_features(case.steps * case.batch, case.inputs)


@cache
def _full_images() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the training set with full images."""
    images, labels = training_set()
    return full_images(images), labels


def full_images(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images of MNIST on a background of noise: 55 % of the pixels are not 0.

    Only their number matters for the time of a training, so no second data set is downloaded.
    """
    rng = np.random.default_rng(0)
    share = (_INK - np.mean(images > 0)) / (1 - np.mean(images > 0))
    noise = rng.integers(1, 64, images.shape, np.uint8)
    noise *= rng.random(images.shape, np.float32) < share
    return np.where(images > 0, images, noise)


def _dense_features(count: int, inputs: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return random examples (count, inputs) float32 in 0…1, and labels that depend on them."""
    rng = np.random.default_rng(0)
    examples = rng.random((count, inputs), np.float32)
    teacher = rng.standard_normal((inputs, _CLASSES), np.float32)
    labels = ((examples - np.float32(0.5)) @ teacher).argmax(axis=1)
    return examples, labels.astype(np.int64)
