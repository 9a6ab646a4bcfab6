"""Converts the ink of one digit to an image in the format of MNIST."""

import numpy as np
from scipy import ndimage

from mnist_accel.data.digit_image.loading import FloatArray, resize

IMAGE_SIZE, BOX_SIZE = 28, 20
# Measured on the 10 000 test images of MNIST: the centers of mass lie at pixel 14.0, not 13.5, in
# both directions. Stroke widths are 0.10 to 0.31 of the longer side of the digit, median 0.13.
CENTER = 14.0
# Strokes thinner than the first fraction of the longer side are thickened to the second.
MIN_STROKE_WIDTH, TARGET_STROKE_WIDTH = 0.08, 0.12


def to_mnist(ink: FloatArray) -> FloatArray:
    """Return the ink (H, W) of a digit as float32 (28, 28), 0 for paper and 1 for full ink."""
    return _normalize(_thicken(_crop(ink)))


def _crop(ink: FloatArray) -> FloatArray:
    """Return the smallest rectangle of `ink` that contains all values above 0.1."""
    rows = np.flatnonzero((ink > 0.1).any(axis=1))
    columns = np.flatnonzero((ink > 0.1).any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _thicken(ink: FloatArray) -> FloatArray:
    """Widen strokes that are thinner than those of MNIST to the usual width in MNIST."""
    size = max(ink.shape)
    mask = ink > 0.3
    # In a bar of width w, the mean distance to the nearest edge is w / 4.
    inside = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1][mask]
    width = 4 * np.mean(inside - 0.5)
    if width >= MIN_STROKE_WIDTH * size:
        return ink
    growth = (TARGET_STROKE_WIDTH * size - width) / 2
    margin = int(np.ceil(growth)) + 1
    distance = ndimage.distance_transform_edt(~np.pad(mask, margin))
    return _crop(np.maximum(np.pad(ink, margin), np.clip(growth + 1 - distance, 0, 1)))


def _normalize(ink: FloatArray) -> FloatArray:
    """Scale cropped ink to the box, and center its mass, as float32 (28, 28)."""
    scale = BOX_SIZE / max(ink.shape)
    height, width = (max(1, round(side * scale)) for side in ink.shape)
    digit = resize(ink.astype(np.float32)[..., None], (height, width))[..., 0]
    digit = digit / digit.max()

    mass = digit.sum()
    middle_y = np.arange(height) @ digit.sum(axis=1) / mass
    middle_x = np.arange(width) @ digit.sum(axis=0) / mass
    top = int(np.clip(round(CENTER - middle_y), 0, IMAGE_SIZE - height))
    left = int(np.clip(round(CENTER - middle_x), 0, IMAGE_SIZE - width))
    image = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
    # Multiples of 1/255, as the pixels of MNIST.
    image[top : top + height, left : left + width] = np.rint(255 * digit) / np.float32(255)
    return image
