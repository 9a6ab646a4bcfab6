"""Tells whether the ink that is read as one digit may be that of several."""

import numpy as np
from scipy import ndimage

from mnist_accel.data.digit_image.boxes import sides, size
from mnist_accel.data.digit_image.figures import MIN_ASPECT
from mnist_accel.data.digit_image.likeness import resembles_digit
from mnist_accel.data.digit_image.loading import FloatArray
from mnist_accel.data.digit_image.normalize import to_mnist

MIN_INK = 0.1
MIN_RELATIVE_SIZE = 0.5  # of the largest part; smaller ones are parts of a digit, such as a bar


def count_figures(ink: FloatArray) -> int:
    """Return the number of connected parts of the ink (H, W) of a digit that may each be a digit.

    Strokes that lie close to each other are read as one digit, such as the two parts of a 5. Two
    digits, one just above the other, are also read as one, but each of them resembles a digit.
    """
    parts, _ = ndimage.label(ink > MIN_INK, structure=np.ones((3, 3)))
    boxes = ndimage.find_objects(parts)
    smallest = MIN_RELATIVE_SIZE * max(map(size, boxes))
    large = [(number, box) for number, box in enumerate(boxes, start=1) if size(box) >= smallest]
    if len(large) == 1:
        return 1
    figures = 0
    for number, box in large:
        height, width = sides(box)
        part = np.where(parts == number, ink, 0)
        if height >= MIN_ASPECT * width and resembles_digit(to_mnist(part)):
            figures += 1
    return max(1, figures)
