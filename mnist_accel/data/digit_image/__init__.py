"""Convert a photo or drawing of digits to images in the format of MNIST.

1. `loading`: read the file, as fractions of black to white.
2. `lines`: replace lines that cross the whole picture, such as rulings, by the paper on their sides.
3. `pages`: find the paper and the marks that it encloses. A desk, and lines along the border, are outside.
4. `figures`: decide which marks are digits, by size, stroke width and shape.
5. `ink`: measure how much each pixel of a digit differs from the paper.
6. `normalize`: thicken strokes that are thinner than those of MNIST, scale the digit to 20×20 pixels, and
   move its center of mass to the center of 28×28 pixels, as was done for MNIST (LeCun et al. 1998).
"""

import os
from pathlib import Path

import numpy as np
from scipy import ndimage

from mnist_accel.data.digit_image.figures import MAX_FIGURES, Figure, extends, find_figures
from mnist_accel.data.digit_image.ink import ink_of_figure, ink_of_picture
from mnist_accel.data.digit_image.lines import remove_lines
from mnist_accel.data.digit_image.loading import FloatArray, load_picture, reduced_shape, resize
from mnist_accel.data.digit_image.normalize import to_mnist
from mnist_accel.data.digit_image.pages import find_pages
from mnist_accel.errors import DataError

# Pages and figures are found in a copy with this number of pixels on the longer side.
SEARCH_SIZE = 320


def read_digit_image(path: str | os.PathLike[str]) -> FloatArray:
    """Return the digit in an image file as float32 (28, 28), 0 for paper and 1 for ink.

    Accepts PNG, JPEG, BMP, GIF and WebP in any size and color mode, dark on light or light on dark.
    Lines, frames, shadows and what lies beside the paper are removed.

    Raises:
        DataError: the file is missing, damaged, not an image, or too large, or it shows no digit or
            several.
    """
    digits = read_digit_images(path)
    if len(digits) > 1:
        raise DataError(
            f"{path} shows {len(digits)} separate figures, expected one digit; crop the picture to one"
        )
    return digits[0]


def read_digit_images(path: str | os.PathLike[str]) -> list[FloatArray]:
    """Return each digit in an image file, from left to right, as `read_digit_image` does.

    Raises:
        DataError: the file is missing, damaged, not an image, or too large, or it shows no digit.
    """
    original = load_picture(Path(path))
    picture, line_count = remove_lines(original)
    seen = {f"{line_count} lines"} if line_count else set()
    figures = _search(picture, seen)
    if len(figures) > MAX_FIGURES:
        raise DataError(f"{path} shows {len(figures)} figures or a texture; crop it to one digit")
    inks = [_ink_of(picture, figure, alone=len(figures) == 1) for figure in figures]
    digits = [to_mnist(ink) for ink in inks if ink is not None]
    if not digits:
        found = f"only {' and '.join(sorted(seen))} on" if seen else "nothing differs enough from"
        raise DataError(
            f"{path} shows no digit: {found} the background; use a picture of one digit with more "
            "contrast and a margin of plain paper"
        )
    return digits


def _search(picture: FloatArray, seen: set[str]) -> list[Figure]:
    """Return the figures of a picture, from left to right; what else was found is added to `seen`."""
    small = resize(picture, reduced_shape(picture, SEARCH_SIZE))
    enclosed, touching = (find_pages(small, with_border=value) for value in (False, True))
    for inside, whole in zip(enclosed, touching, strict=True):
        figures = find_figures(inside, seen=seen)
        # A stroke that touches the border is on no page that ends there.
        complete = find_figures(whole, seen=seen)
        if not figures or any(extends(figure, figures) for figure in complete):
            figures = complete
        if figures:
            return figures
    return []


def _ink_of(picture: FloatArray, figure: Figure, *, alone: bool) -> FloatArray | None:
    """Return the ink (H, W) of a figure; None if it is too faint."""
    local = ink_of_figure(picture, figure)
    if local is None or not alone:
        return local
    # Without disturbances the model of the whole paper shows faint ends of strokes better.
    whole = ink_of_picture(picture)
    if whole is None:
        return local
    near = ndimage.binary_dilation(local > 0, iterations=max(1, max(local.shape) // 60))
    outside = whole[~near].sum()
    return (
        whole if outside < 0.02 * whole.sum() and (whole[local > 0.5] > 0).mean() > 0.98 else local
    )
