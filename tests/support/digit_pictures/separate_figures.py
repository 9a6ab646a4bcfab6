"""Counts how often a picture that is read as one digit seems to show several.

    python -m tests.support.digit_pictures.separate_figures

Prints this for the MNIST test digits in several parts, and for pairs of digits above each other.
"""

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image
from scipy import ndimage

import mnist_accel as ma
from mnist_accel.data import load_dataset
from mnist_accel.data.digit_image import read_digit
from tests.support.digit_pictures.scene import Pixels

SCALE = 8  # pixels of a picture per pixel of an image
GAPS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)  # between two digits, as fractions of 20 pixels
PAIRS = 40  # per gap


def picture_of(images: Iterable[Pixels], *, gap: float = 0.1) -> Pixels:
    """Return a picture of digits (28, 28), each below the one before it, as uint8 (H, W)."""
    digits = []
    for image in images:
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        cut = Image.fromarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        digits.append(cut.resize((SCALE * cut.width, SCALE * cut.height), Image.Resampling.BICUBIC))
    between, margin = round(20 * SCALE * gap), 15 * SCALE
    height = sum(digit.height + between for digit in digits) - between
    ink = Image.new("L", (20 * SCALE + 2 * margin, height + 2 * margin))
    top = margin
    for digit in digits:
        ink.paste(digit, ((ink.width - digit.width) // 2, top))
        top += digit.height + between
    return 255 - np.asarray(ink)


def figures_in(picture: Pixels) -> int | None:
    """Return the number of figures that are read as one digit; None if the picture is refused."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    file.seek(0)
    try:
        return read_digit(file).figures
    except ma.DataError:
        return None


def digits_in_parts(images: Pixels) -> Pixels:
    """Return those of the images (N, 28, 28) whose ink is not connected."""
    count = [ndimage.label(image > 40, structure=np.ones((3, 3)))[1] for image in images]
    return images[np.array(count) > 1]


def main() -> None:
    """Print the counts."""
    images = load_dataset("mnist").x_test
    rng = np.random.default_rng(0)
    pairs = (images[rng.integers(0, len(images), 2)] for _ in range(PAIRS))
    pictures = {
        "digits in several parts": [picture_of([image]) for image in digits_in_parts(images)],
        "pairs of digits": [picture_of(pair, gap=gap) for pair in pairs for gap in GAPS],
    }
    for name, group in pictures.items():
        found = [figures_in(picture) for picture in group]
        one = [figures for figures in found if figures is not None]
        several = sum(figures > 1 for figures in one)
        print(f"{len(group)} {name}: {len(one)} read as one, {several} of them with a warning")


if __name__ == "__main__":
    main()
