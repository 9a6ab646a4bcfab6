"""Recognizes a picture that is cropped to its digit, so that the ink touches the border."""

import numpy as np
from scipy import ndimage

from mnist_accel.data.digit_image.figures import MAX_PARTS, MAX_STROKE_WIDTH
from mnist_accel.data.digit_image.ink import ink_of_picture
from mnist_accel.data.digit_image.loading import FloatArray, Mask
from mnist_accel.data.digit_image.shapes import (
    has_many_strokes,
    is_frame,
    is_solid,
    stroke_width,
)

MARGIN = 0.01  # ink within this fraction of the longer side is at the border
# A stroke that only touches the border is wider inside the picture; one that is cut off is not.
MAX_CONTACT = 0.8  # pixels of the ink at the border, as a fraction of those further inside


def ink_of_crop(picture: FloatArray) -> FloatArray | None:
    """Return the ink (H, W) of a digit that fills a picture (H, W, channels), or else None."""
    ink = ink_of_picture(picture)
    if ink is None:
        return None
    mask = ink > 0.3
    stroke = stroke_width(mask)
    is_digit = (
        stroke <= MAX_STROKE_WIDTH * max(mask.shape)
        and _is_one_figure(mask)
        and _touches_border_only(mask, depth=max(2, round(stroke / 2)))
        and not (is_frame(mask, stroke) or is_solid(mask) or has_many_strokes(mask))
    )
    return ink if is_digit else None


def _touches_border_only(mask: Mask, *, depth: int) -> bool:
    """Return whether the ink touches all four borders, and no border cuts a stroke off."""
    margin = max(1, round(MARGIN * max(mask.shape)))
    turned = [np.rot90(mask, turns) for turns in range(4)]
    at_border = [np.count_nonzero(side[: margin + 1].any(axis=0)) for side in turned]
    inside = sum(np.count_nonzero(side[margin + depth]) for side in turned)
    return bool(min(at_border) > 0 and sum(at_border) <= MAX_CONTACT * inside)


def _is_one_figure(mask: Mask) -> bool:
    """Return whether a mask has few parts, and only one of them is as high as a digit."""
    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    heights = [rows.stop - rows.start for rows, _ in ndimage.find_objects(parts)]
    tall = sum(height > 0.5 * len(mask) for height in heights)
    return bool(count <= MAX_PARTS and tall == 1)
