"""The problem that all steps solve: the images, the initial weights, and how a script reports.

The network has 784 inputs, 50 hidden units with ReLU, and 10 outputs with softmax. Training is
plain gradient descent on batches of 8 images, in the order of the data set.
"""

import sys
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import mnist_accel as ma
from mnist_accel.data import Dataset
from mnist_accel.data.sources.digests import PUBLISHED_SETS
from mnist_accel.data.sources.fetch import fetch_files
from mnist_accel.data.sources.local_copies import LocalCopies

PIXELS, HIDDEN, CLASSES = 784, 50, 10
BATCH = 8
LEARNING_RATE = 0.125

Parameters: TypeAlias = list[NDArray[np.float32]]
# Each step has a function `train` with the arguments images, labels and parameters. It makes one
# update per batch, changes the parameters in place, and returns the loss of each batch.
Train: TypeAlias = Callable[[NDArray[np.float32], NDArray[np.int64], Parameters], Any]


def dataset() -> Dataset:
    """Return MNIST if this machine has it, otherwise the digits of the package; never download."""
    try:
        fetch_files(PUBLISHED_SETS["mnist"], fallbacks=(LocalCopies(),))
    except ma.DataError:
        return ma.load_dataset("digits")
    return ma.load_dataset("mnist")


def load(count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the first images, float32 (count, 784) in 0…1, and their labels (count,).

    If the data set has fewer images, it is repeated.
    """
    data = dataset()
    rows = np.arange(count) % len(data.x_train)
    pixels = data.x_train[rows].reshape(count, PIXELS)
    return pixels / np.float32(255), data.t_train[rows].astype(np.int64)


def initial_parameters() -> Parameters:
    """Return W1 (784, 50), b1 (50,), W2 (50, 10) and b2 (10,), equal in every call."""
    rng = np.random.default_rng(0)
    W1 = rng.normal(0, np.sqrt(2 / PIXELS), (PIXELS, HIDDEN))
    W2 = rng.normal(0, np.sqrt(2 / HIDDEN), (HIDDEN, CLASSES))
    parameters = W1, np.zeros(HIDDEN), W2, np.zeros(CLASSES)
    return [array.astype(np.float32) for array in parameters]


def run(train: Train, *, images: int) -> None:
    """Train, and print the first and the last losses and the time; a script calls this.

    The number of images can also be given as the argument of the script.
    """
    count = int(sys.argv[1]) if len(sys.argv) > 1 else images
    x, t = load(count - count % BATCH)
    train(x[:BATCH], t[:BATCH], initial_parameters())  # what needs to be compiled, compiles now
    start = perf_counter()
    losses = train(x, t, initial_parameters())
    seconds = perf_counter() - start
    print(f"{len(x)} images, {len(losses)} steps, {1e6 * seconds / len(x):.1f} µs per image")
    print(f"losses: {shown(losses[:4])} … {shown(losses[-2:])}")


def shown(losses: Sequence[float]) -> str:
    """Return losses with five decimals."""
    return " ".join(f"{loss:.5f}" for loss in losses)
