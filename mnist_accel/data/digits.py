"""The 1797 handwritten digits that scikit-learn bundles, made to look like MNIST.

`digits.npz` beside this file holds what `sklearn.datasets.load_digits` returns: images of 8×8
pixels with values 0…16, and their labels. It works with no network at all.

The data are the test set of "Optical Recognition of Handwritten Digits" by E. Alpaydin and
C. Kaynak (1998), UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, used under the
Creative Commons Attribution 4.0 licence.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_PATH = Path(__file__).with_name("digits.npz")
_BOX = 20

# Four fifths, in the order of the file, as scikit-learn's own example splits it: no shuffling.
TRAIN_COUNT = 1437


def read_raw_digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the bundled images (1797, 8, 8) with values 0…16, and their labels (1797,)."""
    with np.load(_PATH, allow_pickle=False) as archive:
        return archive["images"], archive["labels"]


def read_digits() -> tuple[
    tuple[NDArray[np.uint8], NDArray[np.uint8]], tuple[NDArray[np.uint8], NDArray[np.uint8]]
]:
    """Return (images, labels) for training, the first 1437, and for testing, the last 360.

    Images are uint8 (N, 28, 28), labels uint8 (N,).
    """
    raw, labels = read_raw_digits()
    images = enlarge(raw)
    return (
        (images[:TRAIN_COUNT], labels[:TRAIN_COUNT]),
        (images[TRAIN_COUNT:], labels[TRAIN_COUNT:]),
    )


def enlarge(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images (N, 8, 8) with values 0…16 as MNIST-like uint8 (N, 28, 28).

    As in MNIST, the digit fills a box of 20×20 pixels, here by bilinear interpolation, and the box
    lies so that the centre of mass is in the middle of the image, to the nearest pixel.
    """
    along = _interpolation(raw.shape[1], _BOX)
    boxes = np.rint(along @ (raw * (255 / 16)) @ along.T).astype(np.uint8)
    images = np.zeros((len(raw), 28, 28), np.uint8)
    for image, box in zip(images, boxes, strict=True):
        top, left = (_offset(box.sum(axis=1 - axis, dtype=np.float64)) for axis in (0, 1))
        image[top : top + _BOX, left : left + _BOX] = box
    return images


def _interpolation(count: int, size: int) -> NDArray[np.float64]:
    """Return the matrix (size, count) that interpolates `count` samples linearly at `size` points.

    Pixels are areas: the outer edges of both grids coincide, so point i lies at
    (i + ½)·count/size − ½ and the outermost points repeat the outermost samples.
    """
    points = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
    return np.maximum(0.0, 1.0 - abs(points[:, None] - np.arange(count)))


def _offset(profile: NDArray[np.float64]) -> int:
    """Return where to begin a box with this ink per line for its centre of mass at 13.5."""
    centre = float(profile @ np.arange(_BOX)) / max(float(profile.sum()), 1.0)
    return int(np.clip(round(13.5 - centre), 0, 28 - _BOX))
