"""The 1797 handwritten digits of scikit-learn, converted to the format of MNIST.

`digits.npz` in this folder contains the result of `sklearn.datasets.load_digits`: images of 8×8
pixels with values 0…16, and their labels. Nothing is downloaded.

The data are the test set of "Optical Recognition of Handwritten Digits" by E. Alpaydin and
C. Kaynak (1998), UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, used under the
Creative Commons Attribution 4.0 license.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_PATH = Path(__file__).with_name("digits.npz")
_BOX_SIZE = 20

# The first four fifths of the file, without shuffling.
NUM_TRAIN = 1437


def read_raw_digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the stored images (1797, 8, 8) with values 0…16, and their labels (1797,)."""
    with np.load(_PATH, allow_pickle=False) as archive:
        return archive["images"], archive["labels"]


def read_digits() -> tuple[
    tuple[NDArray[np.uint8], NDArray[np.uint8]], tuple[NDArray[np.uint8], NDArray[np.uint8]]
]:
    """Return ((x_train, t_train), (x_test, t_test)): the first 1437 images and the last 360.

    Images are uint8 (N, 28, 28), labels are uint8 (N,).
    """
    raw, labels = read_raw_digits()
    images = enlarge(raw)
    return ((images[:NUM_TRAIN], labels[:NUM_TRAIN]), (images[NUM_TRAIN:], labels[NUM_TRAIN:]))


def enlarge(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert images (N, 8, 8) with values 0…16 to the format of MNIST, uint8 (N, 28, 28).

    As in MNIST, the digit is scaled to a box of 20×20 pixels, here by bilinear interpolation. The
    box is placed so that its center of mass is at the center of the image, to the nearest pixel.
    """
    weights = _interpolation_matrix(raw.shape[1], _BOX_SIZE)
    boxes = np.rint(weights @ (raw * (255 / 16)) @ weights.T).astype(np.uint8)
    images = np.zeros((len(raw), 28, 28), np.uint8)
    for image, box in zip(images, boxes, strict=True):
        top, left = (_offset(box.sum(axis=1 - axis, dtype=np.float64)) for axis in (0, 1))
        image[top : top + _BOX_SIZE, left : left + _BOX_SIZE] = box
    return images


def _interpolation_matrix(count: int, size: int) -> NDArray[np.float64]:
    """Return the matrix (size, count) that interpolates `count` samples linearly at `size` points.

    Pixels are areas, and the outer edges of both grids coincide. So point i lies at
    (i + ½)·count/size − ½, and points beyond the outermost samples repeat them.
    """
    points = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
    return np.maximum(0.0, 1.0 - abs(points[:, None] - np.arange(count)))


def _offset(profile: NDArray[np.float64]) -> int:
    """Return the start of a box with `profile` ink per line that centers its mass at 13.5."""
    center = float(profile @ np.arange(_BOX_SIZE)) / max(float(profile.sum()), 1.0)
    return int(np.clip(round(13.5 - center), 0, 28 - _BOX_SIZE))
