"""Find the digits in a picture."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mnist_accel.data.digit_image.crops import inks_of_crop
from mnist_accel.data.digit_image.figures import (
    UNLIKE_DIGIT,
    Figure,
    complete_parts,
    continue_rows,
    find_figures,
)
from mnist_accel.data.digit_image.ink import ink_of_figure, ink_of_picture
from mnist_accel.data.digit_image.likeness import resembles_digit
from mnist_accel.data.digit_image.lines import remove_lines
from mnist_accel.data.digit_image.loading import FloatArray, reduced_shape, resize
from mnist_accel.data.digit_image.normalize import to_mnist
from mnist_accel.data.digit_image.pages import find_pages
from mnist_accel.data.digit_image.separate import count_figures
from mnist_accel.util.text import count

# Pages and figures are found in a copy with this number of pixels on the longer side.
SEARCH_SIZE = 320
# Number of edge levels that are examined after the first one with a figure.
FURTHER_LEVELS = 3


@dataclass(frozen=True)
class Digit:
    """A digit in a picture.

    Attributes:
        image: the digit in the format of MNIST, float32 (28, 28).
        figures: number of connected parts of its ink that may each be a digit, usually 1.
    """

    image: FloatArray
    figures: int


def find_digits(picture: FloatArray) -> tuple[list[Digit], list[str]]:
    """Return the digits in a picture, and the names of everything else in it.

    Args:
        picture: (H, W, channels), 0 for black and 1 for white.

    Returns:
        The digits from left to right, and names for error messages, such as "a frame".
    """
    crops = [_digit(ink) for ink in inks_of_crop(picture)]
    if crops and all(resembles_digit(digit.image) for digit in crops):
        return crops, []
    picture, line_count = remove_lines(picture)
    seen = {f"{count(line_count, 'line')} across the picture"} if line_count else set()
    figures = _search(picture, seen)
    inks = [_ink_of(picture, figure, alone=len(figures) == 1) for figure in figures]
    digits = [_digit(ink) for ink in inks if ink is not None]
    if not all(resembles_digit(digit.image) for digit in digits):
        return [], sorted({*seen, UNLIKE_DIGIT})
    return digits, sorted(seen)


def _digit(ink: FloatArray) -> Digit:
    return Digit(to_mnist(ink), count_figures(ink))


def _search(picture: FloatArray, seen: set[str]) -> list[Figure]:
    """Return the figures of a picture from left to right; add names of other marks to `seen`."""
    small = resize(picture, reduced_shape(picture, SEARCH_SIZE))
    levels_inside, levels_beyond = (find_pages(small, with_border=value) for value in (False, True))
    found: list[Figure] = []
    further = 0
    for pages_inside, pages_beyond in zip(levels_inside, levels_beyond, strict=True):
        figures = find_figures(pages_inside, seen=seen)
        # A stroke that touches the border is only on pages that continue beyond the border. So may
        # be the first and last digits of a row.
        complete = find_figures(pages_beyond, seen=seen)
        if not figures or complete_parts(complete, figures) or continue_rows(complete, figures):
            figures = complete
        # With weaker edges, a figure may also contain the faint parts of a digit.
        if not found or complete_parts(figures, found):
            found = figures
        further += bool(found)
        if further > FURTHER_LEVELS:
            break
    return found


def _ink_of(picture: FloatArray, figure: Figure, *, alone: bool) -> FloatArray | None:
    """Return the ink (H, W) of a figure; None if it is too faint."""
    local = ink_of_figure(picture, figure)
    if local is None or not alone:
        return local
    # `ink_of_picture` shows faint ends of strokes better, but it is reliable only if the picture
    # contains nothing else. In this case, both results agree.
    whole = ink_of_picture(picture)
    if whole is None:
        return local
    near = ndimage.binary_dilation(local > 0, iterations=max(1, max(local.shape) // 60))
    outside = whole[~near].sum()
    agrees = outside < 0.02 * whole.sum() and (whole[local > 0.5] > 0).mean() > 0.98
    if not agrees:
        return local
    parts, _ = ndimage.label(whole > 0, structure=np.ones((3, 3)))
    is_figure = np.isin(parts, np.unique(parts[near & (whole > 0)]))
    return np.where(is_figure, whole, 0)
