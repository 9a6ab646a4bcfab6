"""Tells digits from other shapes with a small network.

The network has one hidden layer. It was trained with this project on the digits of the training
sets of MNIST and scikit-learn, also with other pens and slopes, and on scribbles, letters, symbols,
areas and touching digits. `python -m tests.support.digit_pictures.train_likeness` trains it again.
"""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnist_accel.data.digit_image.loading import FloatArray

PATH = Path(__file__).with_name("likeness.npz")
# A shape with a lower score is no digit. Fewer than 1 % of the digits of MNIST have one.
MIN_SCORE = -4.5


def resembles_digit(image: FloatArray) -> bool:
    """Return whether an image (28, 28) in the format of MNIST resembles a digit."""
    return bool(score(image[None])[0] > MIN_SCORE)


def score(images: FloatArray) -> NDArray[np.float32]:
    """Return how much each of the images (N, 28, 28) resembles a digit, not another shape."""
    weights = _weights()
    hidden = np.maximum(images.reshape(len(images), -1) @ weights["W1"] + weights["b1"], 0)
    logits = hidden @ weights["W2"] + weights["b2"]
    difference: NDArray[np.float32] = logits[:, 1] - logits[:, 0]
    return difference


@cache
def _weights() -> dict[str, NDArray[np.float32]]:
    with np.load(PATH, allow_pickle=False) as archive:
        return {name: archive[name].astype(np.float32) for name in archive.files}
