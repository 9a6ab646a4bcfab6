"""Recognizes a picture that is cropped to its digits, so that the ink touches the border."""

import numpy as np
from scipy import ndimage

from mnist_accel.data.digit_image.figures import MAX_PARTS
from mnist_accel.data.digit_image.ink import ink_of_picture
from mnist_accel.data.digit_image.loading import FloatArray, Mask
from mnist_accel.data.digit_image.marks import MAX_STROKE_WIDTH
from mnist_accel.data.digit_image.shapes import (
    has_many_strokes,
    is_frame,
    is_solid,
    stroke_width,
)

MARGIN = 0.01  # ink within this fraction of the longer side is at the border
# A stroke that only touches the border is wider inside the picture; one that is cut off is not.
MAX_CONTACT = 0.8  # pixels of the ink at the border, as a fraction of those further inside
MIN_HEIGHT = 0.5  # height of a digit, as a fraction of the height of the picture


def inks_of_crop(picture: FloatArray) -> list[FloatArray]:
    """Return the ink (H, W) of each digit, from left to right, if digits fill a picture.

    The result is empty for any other picture (H, W, channels).
    """
    ink = ink_of_picture(picture)
    if ink is None or not _touches_border_only(ink > 0.3):
        return []
    masks = _figures(ink > 0.3)
    if not all(_may_be_digit(mask) for mask in masks):
        return []
    # Soft edges are up to a few pixels wide.
    near = [ndimage.binary_dilation(mask, iterations=3) for mask in masks]
    return [ink if len(masks) == 1 else np.where(n, ink, 0) for n in near]


def _touches_border_only(mask: Mask) -> bool:
    """Return whether the ink touches all four borders, and no border cuts a stroke off."""
    margin = max(1, round(MARGIN * max(mask.shape)))
    depth = margin + max(2, round(stroke_width(mask) / 2))
    if depth >= min(mask.shape):
        return False
    turned = [np.rot90(mask, turns) for turns in range(4)]
    at_border = np.array([np.count_nonzero(side[: margin + 1].any(axis=0)) for side in turned])
    inside = np.array([np.count_nonzero(side[depth]) for side in turned])
    # One flat stroke may lie along the border, such as the top of a 7.
    is_cut = at_border > MAX_CONTACT * inside
    return bool((at_border > 0).all() and np.count_nonzero(is_cut) <= 1)


def _figures(mask: Mask) -> list[Mask]:
    """Return the parts of a mask (H, W) as high as a digit, each with the low parts near it."""
    parts, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    boxes = ndimage.find_objects(parts)
    tall = [n for n, (y, _) in enumerate(boxes) if y.stop - y.start > MIN_HEIGHT * len(mask)]
    tall.sort(key=lambda n: boxes[n][1].start)
    middles = np.array([(x.start + x.stop) / 2 for _, x in boxes])
    owners = [min(tall, key=lambda n: abs(middles[n] - middle), default=-1) for middle in middles]
    return [np.isin(parts, [m + 1 for m, owner in enumerate(owners) if owner == n]) for n in tall]


def _may_be_digit(mask: Mask) -> bool:
    box = ndimage.find_objects(mask.astype(int))[0]
    cut = mask[box]
    stroke = stroke_width(cut)
    few_parts = ndimage.label(cut, structure=np.ones((3, 3)))[1] <= MAX_PARTS
    is_thin = stroke <= MAX_STROKE_WIDTH * max(cut.shape)
    is_other = is_frame(cut, stroke) or is_solid(cut) or has_many_strokes(cut)
    return bool(few_parts and is_thin and not is_other)
