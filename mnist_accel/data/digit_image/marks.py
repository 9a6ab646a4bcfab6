"""The marks on a page, and which of them may be strokes of a digit.

A mark is a connected set of pixels with ink. Marks other than strokes are areas, frames, lines,
textures, and edges of paper or shadows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mnist_accel.data.digit_image.boxes import Box, contains, grown, size
from mnist_accel.data.digit_image.loading import Mask
from mnist_accel.data.digit_image.pages import Page
from mnist_accel.data.digit_image.shapes import is_frame, is_rectangle, stroke_width

MIN_MARK = 0.02  # size as a fraction of the longer side of the picture; less is noise
# As a fraction of the longer side of the mark. The widest stroke of MNIST digits with a pen twice
# as thick is 0.41.
MAX_STROKE_WIDTH = 0.42
MAX_STROKE_AT_BORDER = 0.3  # in place of MAX_STROKE_WIDTH, because desks touch the border
# Within BORDER of a border, as a fraction of the longer side of the picture, a line or a desk
# extends along more than MAX_ALONG_BORDER of its own size. The top of a 7 extends along 0.75.
BORDER = 0.05
MAX_ALONG_BORDER = 0.85
# Minimum strength of a stroke, as a fraction of the contrast of the picture; less is a texture.
MIN_STRENGTH = 0.15
# A stroke is a ridge: it differs from the darker of its two sides by at least this fraction of its
# strength. An edge has a side as dark as itself.
MIN_RIDGE_RATIO = 0.75
# Difference of the two sides, as a fraction of the ridge. At the edge of a shadow it reaches 0.9.
MAX_SIDE_RATIO = 1.0


@dataclass(frozen=True, eq=False)
class Mark:
    """A connected set of pixels with ink.

    Attributes:
        box: rows and columns.
        mask: its pixels in the box, (H, W).
    """

    box: Box
    mask: Mask

    @property
    def size(self) -> int:
        """The longer side in pixels."""
        return size(self.box)

    def within(self, box: Box) -> Mask:
        """Return the pixels in a box that contains the mark."""
        margins = [(m.start - b.start, b.stop - m.stop) for m, b in zip(self.box, box, strict=True)]
        return np.pad(self.mask, margins)


def find_marks(page: Page) -> list[Mark]:
    """Return the marks on a page, except noise."""
    parts, _ = ndimage.label(page.marks, structure=np.ones((3, 3)))
    smallest = max(3, MIN_MARK * max(page.marks.shape))
    boxes = enumerate(ndimage.find_objects(parts), start=1)
    return [Mark(box, parts[box] == n) for n, box in boxes if size(box) >= smallest]


def fault_of(mark: Mark, marks: Sequence[Mark], page: Page) -> str:
    """Return a name for a mark that is not a stroke of a digit; "" if it may be a stroke.

    Args:
        mark: one of `marks`.
        marks: all marks on the page.
        page: the page.
    """
    stroke = stroke_width(mark.mask)
    if any(_frames(mark, other) for other in marks):
        return "a frame"
    return (
        _fault_of_shape(mark, stroke)
        or _fault_at_border(mark, stroke, page)
        or _fault_of_ink(mark, stroke, page)
    )


def _frames(mark: Mark, other: Mark) -> bool:
    """Return whether a mark surrounds another one at a distance, such as a circle or axes."""
    if other is mark or other.size < 0.3 * mark.size or not contains(mark.box, other.box):
        return False
    distance = ndimage.distance_transform_edt(~mark.mask)
    return bool(distance[other.within(mark.box)].min() > 0.15 * mark.size)


def _fault_of_shape(mark: Mark, stroke: float) -> str:
    """Return "an area", "a frame" or "a rectangle"; "" for another shape."""
    shorter = min(mark.mask.shape)
    # The stroke width of a mark of a few pixels is inaccurate; it may be a dot or a short stroke.
    if shorter > 8 and stroke > MAX_STROKE_WIDTH * mark.size:
        return "an area"
    # A narrow straight stroke also covers its sides.
    if shorter > 0.3 * mark.size and mark.size > 12 and is_frame(mark.mask, stroke):
        return "a frame"
    return "a rectangle" if is_rectangle(mark.mask) else ""


def _fault_at_border(mark: Mark, stroke: float, page: Page) -> str:
    """Return a name for a mark that continues beyond the picture; "" for another mark."""
    shape = page.marks.shape
    top, left = (side.start <= 1 for side in mark.box)
    bottom, right = (side.stop >= length - 1 for side, length in zip(mark.box, shape, strict=True))
    if top and left and bottom and right:
        return "a texture"
    # A digit that fills the picture from border to border is wider or thicker than a line.
    opposite = (top and bottom) or (left and right)
    if opposite and (stroke < 0.05 * mark.size or min(mark.mask.shape) < 0.12 * mark.size):
        return "a line along or across the picture"
    if top or left or bottom or right:
        if stroke > MAX_STROKE_AT_BORDER * mark.size:
            return "an area at the border"
        if _extent_along_border(mark, shape) > MAX_ALONG_BORDER * mark.size:
            return "a line along the border"
    return ""


def _extent_along_border(mark: Mark, shape: tuple[int, ...]) -> int:
    """Return the extent of a mark along a border of the picture in pixels."""
    margin = max(2, round(BORDER * max(shape)))
    whole = mark.within((slice(0, shape[0]), slice(0, shape[1])))
    near = (np.rot90(whole, turns)[:margin].any(axis=0) for turns in range(4))
    return max(int(side.sum()) for side in near)


def _fault_of_ink(mark: Mark, stroke: float, page: Page) -> str:
    """Return "an edge" or "a texture" if a mark differs too little from its sides; "" otherwise."""
    reach = round(3 * stroke) + 3  # pixels; wide enough to contain both sides of the stroke
    window = grown(mark.box, reach)
    ink = mark.within(window)[: page.darkness.shape[0] - window[0].start]
    ink = ink[:, : page.darkness.shape[1] - window[1].start]
    nearby = page.darkness[window]
    darker_side = ndimage.grey_opening(nearby, size=reach)[ink]
    lighter_side = ndimage.minimum_filter(nearby, size=reach)[ink]
    strength = page.strength[mark.box][mark.mask]
    ridge = np.maximum(nearby[ink] - darker_side, 1e-6)
    is_ridge = np.median(ridge / strength) >= MIN_RIDGE_RATIO
    if not is_ridge or np.median((darker_side - lighter_side) / ridge) > MAX_SIDE_RATIO:
        return "an edge"
    return "a texture" if np.median(strength) < MIN_STRENGTH * page.contrast else ""
