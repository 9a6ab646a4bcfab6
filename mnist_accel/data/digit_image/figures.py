"""Decides which marks on a page are digits: by size, stroke width, and shape.

A figure is a mark, or several marks that belong together, that may be a digit.
"""

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mnist_accel.data.digit_image.loading import Mask
from mnist_accel.data.digit_image.pages import Page
from mnist_accel.data.digit_image.shapes import (
    has_many_strokes,
    is_frame,
    is_solid,
    stroke_width,
)

MIN_SIZE = 0.05  # of a figure, as a fraction of the longer side of the picture; less is dirt
MIN_MARK = 0.02  # of a mark, as a fraction of the longer side of the picture; less is noise
MIN_RELATIVE_SIZE = 0.4  # of the largest figure; smaller marks are dirt, or labels of a plot
# As a fraction of the longer side of the figure. The widest stroke of MNIST digits with a pen twice
# as thick is 0.41.
MAX_STROKE_WIDTH = 0.42
MAX_STROKE_AT_BORDER = 0.3  # in place of MAX_STROKE_WIDTH, because desks touch the border
# Marks with a smaller distance, as a fraction of the size of the smaller mark, belong together,
# unless they stand side by side like two digits.
MAX_GAP = 0.3
# More marks than MAX_MARKS are a text or a texture. Marks smaller than MIN_MARK_SIZE, as a fraction
# of the size of the largest figure, are not counted.
MAX_MARKS = 24
MIN_MARK_SIZE = 0.25
# Within BORDER of a border, as a fraction of the longer side of the picture, a line or a desk
# extends along more than MAX_ALONG_BORDER of its own size. The top of a 7 extends along 0.75.
BORDER = 0.05
MAX_ALONG_BORDER = 0.85
# 99.9 % of the digits of MNIST are at most 1.7 times as wide as high, and have at most four parts.
MIN_ASPECT = 0.55
MAX_PARTS = 4
TANGLE = "a shape with more strokes than a digit"
MAX_PAGE_STROKE = 0.2  # stroke width, as a fraction of the size; a sheet of paper has more
# The shorter side of a frame or sheet with marks outside, as a fraction of the picture.
MIN_FRAME = 0.25
# Minimum strength of a stroke, as a fraction of the contrast of the picture; less is a texture.
MIN_STRENGTH = 0.15
# A stroke is a ridge: it differs from the darker of its two sides by at least this fraction of its
# strength. An edge has a side as dark as itself.
MIN_RIDGE_RATIO = 0.75
# Difference of the two sides, as a fraction of the ridge. At the edge of a shadow it reaches 0.9.
MAX_SIDE_RATIO = 1.0


@dataclass(frozen=True)
class Figure:
    """Marks that may be a digit.

    Attributes:
        page: the page they are on.
        mask: their pixels, (H, W).
        box: slices of rows and columns.
        is_tangle: whether they have more strokes than a digit, such as a scribble or a QR code.
    """

    page: Page
    mask: Mask
    box: tuple[slice, slice]
    is_tangle: bool

    @property
    def size(self) -> int:
        """The longer side in pixels."""
        return max(_sides(self.box))


def find_figures(pages: list[Page], *, seen: set[str]) -> list[Figure]:
    """Return the figures on pages, from left to right.

    Args:
        pages: the largest first. An area that a figure encloses, such as in a zero, is not a page.
        seen: set to which the names of other marks are added, such as "a frame".
    """
    figures: list[Figure] = []
    for page in pages:
        for figure in _figures_on(page, seen):
            if not any(_is_inside(figure.box, other.box) for other in figures):
                figures = [f for f in figures if not _may_complete(figure, f)] + [figure]
    figures = [figure for figure in figures if not figure.is_tangle]
    if not figures:
        return []
    largest = max(figure.size for figure in figures)
    figures = [figure for figure in figures if figure.size >= MIN_RELATIVE_SIZE * largest]
    return sorted(figures, key=lambda figure: figure.box[1].start)


def complete_parts(figures: list[Figure], parts: list[Figure]) -> bool:
    """Return whether `figures` contain all of `parts` and additional marks."""
    owners = [next((f for f in figures if _may_complete(f, part)), None) for part in parts]
    if any(owner is None for owner in owners):
        return False
    return len(figures) < len(parts) or any(
        owner is not None and _area(owner.box) > 1.15 * _area(part.box)
        for owner, part in zip(owners, parts, strict=True)
    )


def _may_complete(figure: Figure, part: Figure) -> bool:
    """Return whether a figure contains a part in its box, and may be the digit of this part.

    This is so if both are on the same page, or the figure is the page of the part or encloses it.
    """
    if not _is_inside(part.box, figure.box):
        return False
    areas = [np.count_nonzero(f.page.hull) for f in (figure, part)]
    if max(areas) < 1.3 * min(areas):
        return True
    if stroke_width(figure.mask[figure.box]) >= MAX_PAGE_STROKE * figure.size:
        return False  # the figure is a sheet
    is_page = np.count_nonzero(part.page.hull & figure.mask) > 0.5 * areas[1]
    enclosed = ndimage.binary_fill_holes(figure.mask) & ~figure.mask
    is_paper_in_loop = np.count_nonzero(enclosed & part.mask) > 0.8 * np.count_nonzero(part.mask)
    return bool(is_page or is_paper_in_loop)


def _area(box: tuple[slice, slice]) -> int:
    return _sides(box)[0] * _sides(box)[1]


def _figures_on(page: Page, seen: set[str]) -> list[Figure]:
    shape = page.marks.shape
    parts, count = ndimage.label(page.marks, structure=np.ones((3, 3)))
    boxes = ndimage.find_objects(parts)
    masks = {n: parts[boxes[n]] == n + 1 for n in range(count)}
    smallest = max(3, MIN_MARK * max(shape))
    kept = [n for n in masks if max(_sides(boxes[n])) >= smallest]
    strokes = []
    blobs: set[int] = set()
    frames: list[tuple[slice, slice]] = []
    largest = max((max(_sides(boxes[n])) for n in kept), default=0)
    for n in kept:
        others = [m for m in kept if m != n and _contains(boxes[n], boxes[m])]
        fault = _fault(masks[n], boxes[n], page)
        if any(_is_framed(parts, boxes, n, m) for m in others):
            fault = "a frame"
        if fault and min(_sides(boxes[n])) > MIN_FRAME * max(shape):
            frames.append(boxes[n])
        if not fault:
            strokes.append(n)
        elif max(_sides(boxes[n])) < MIN_RELATIVE_SIZE * largest:
            blobs.add(n)  # may be the end of a stroke
        else:
            seen.add(fault)
    figures: list[Figure] = []
    for group in _groups(parts, boxes, [*strokes, *blobs]):
        mask = np.isin(parts, [n + 1 for n in group])
        if 2 * sum(int(masks[n].sum()) for n in blobs.intersection(group)) > mask.sum():
            continue  # ends are smaller than the stroke
        box = ndimage.find_objects(mask.astype(int))[0]
        fault = _group_fault(mask[box], len(group), shape)
        if not fault and any(_is_label(box, frame) for frame in frames):
            fault = "small marks outside a frame"
        if fault:
            seen.add(fault)
        if not fault or fault == TANGLE:
            figures.append(Figure(page, mask, box, is_tangle=fault == TANGLE))
    size = max((figure.size for figure in figures), default=0)
    if sum(max(_sides(boxes[n])) > MIN_MARK_SIZE * size for n in kept) > MAX_MARKS:
        seen.add("a texture or many marks")
        return []
    return figures


def _group_fault(mask: Mask, part_count: int, shape: tuple[int, ...]) -> str:
    """Return a name for a group of marks that is not a digit; "" if the group may be a digit.

    Args:
        mask: the pixels of the marks in their box.
        part_count: number of marks.
        shape: height and width of the picture.
    """
    height, width = mask.shape
    if max(height, width) < MIN_SIZE * max(shape):
        return "marks that are too small"
    if height < MIN_ASPECT * width:
        return "a dash or a shape wider than a digit"
    if part_count > MAX_PARTS:
        return "scattered marks"
    if is_solid(mask):
        return "an area"
    if has_many_strokes(mask):
        return TANGLE
    return ""


def _is_label(box: tuple[slice, slice], frame: tuple[slice, slice]) -> bool:
    """Return whether a figure is small and outside a frame, as the numbers at axes are."""
    size = max(_sides(frame))
    margin = round(0.08 * size)  # the ticks of axes extend outside
    inside = tuple(slice(side.start + margin, side.stop - margin) for side in frame)
    return max(_sides(box)) < 0.25 * size and not _is_inside(box, (inside[0], inside[1]))


def _sides(box: tuple[slice, slice]) -> tuple[int, int]:
    """Return height and width of a box."""
    return box[0].stop - box[0].start, box[1].stop - box[1].start


def _fault(
    mask: Mask,
    box: tuple[slice, slice],
    page: Page,
) -> str:
    """Return a name for a mark that is not a stroke of a digit; "" if it may be a stroke."""
    height, width = _sides(box)
    size = max(height, width)
    stroke = stroke_width(mask)
    # The stroke width of a mark of a few pixels is inaccurate; it may be a dot or a short stroke.
    if min(height, width) > 8 and stroke > MAX_STROKE_WIDTH * size:
        return "an area"
    # A narrow straight stroke also covers its sides.
    if min(height, width) > 0.3 * size and size > 12 and is_frame(mask, stroke):
        return "a frame"
    shape = page.marks.shape
    top, left = box[0].start <= 1, box[1].start <= 1
    bottom, right = box[0].stop >= shape[0] - 1, box[1].stop >= shape[1] - 1
    if top and left and bottom and right:
        return "a texture"
    # A digit that fills the picture from border to border is wider or thicker than a line.
    opposite = (top and bottom) or (left and right)
    if opposite and (stroke < 0.05 * size or min(height, width) < 0.12 * size):
        return "a line along or across the picture"
    if top or left or bottom or right:
        if stroke > MAX_STROKE_AT_BORDER * size:
            return "an area at the border"
        if _along_border(mask, box, shape) > MAX_ALONG_BORDER:
            return "a line along the border"
    if not _has_paper_on_both_sides(mask, box, page, stroke):
        return "an edge"
    if np.median(page.strength[box][mask]) < MIN_STRENGTH * page.contrast:
        return "a texture"
    return ""


def _along_border(mask: Mask, box: tuple[slice, slice], shape: tuple[int, ...]) -> float:
    """Return the extent of a mark along a border of the picture, as a fraction of its size."""
    whole = np.zeros(shape, dtype=bool)
    whole[box] = mask
    margin = max(2, round(BORDER * max(shape)))
    near = [np.rot90(whole, turns)[:margin].any(axis=0) for turns in range(4)]
    return float(max(np.count_nonzero(side) for side in near) / max(mask.shape))


def _has_paper_on_both_sides(
    mask: Mask, box: tuple[slice, slice], page: Page, stroke: float
) -> bool:
    """Return whether the paper on both sides of a mark is similar, unlike at an edge."""
    reach = round(3 * stroke) + 3  # pixels; wide enough to contain both sides of the stroke
    window = tuple(slice(max(0, s.start - reach), s.stop + reach) for s in box)
    inner = tuple(
        slice(s.start - w.start, s.stop - w.start) for s, w in zip(box, window, strict=True)
    )
    nearby = page.darkness[window]
    darker_side = ndimage.grey_opening(nearby, size=reach)[inner][mask]
    lighter_side = ndimage.minimum_filter(nearby, size=reach)[inner][mask]
    ridge = np.maximum(nearby[inner][mask] - darker_side, 1e-6)
    ridge_ratio = np.median(ridge / page.strength[box][mask])
    side_ratio = np.median((darker_side - lighter_side) / ridge)
    return bool(ridge_ratio >= MIN_RIDGE_RATIO and side_ratio <= MAX_SIDE_RATIO)


def _is_framed(
    parts: NDArray[np.int32], boxes: list[tuple[slice, slice]], outer: int, inner: int
) -> bool:
    """Return whether a mark surrounds another one at a distance, such as a circle or axes."""
    size = max(_sides(boxes[outer]))
    if max(_sides(boxes[inner])) < 0.3 * size:
        return False
    cut = parts[boxes[outer]]
    distance = ndimage.distance_transform_edt(cut != outer + 1)
    return bool(distance[cut == inner + 1].min() > 0.15 * size)


def _contains(outer: tuple[slice, slice], inner: tuple[slice, slice]) -> bool:
    return all(o.start <= i.start and i.stop <= o.stop for o, i in zip(outer, inner, strict=True))


def _is_inside(inner: tuple[slice, slice], outer: tuple[slice, slice]) -> bool:
    """Return whether most of a box is inside another one."""
    common = [
        max(0, min(a.stop, b.stop) - max(a.start, b.start))
        for a, b in zip(inner, outer, strict=True)
    ]
    return bool(common[0] * common[1] > 0.6 * _area(inner))


def _groups(
    parts: NDArray[np.int32], boxes: list[tuple[slice, slice]], strokes: list[int]
) -> list[tuple[int, ...]]:
    """Return the strokes in groups that belong to the same digit."""
    groups: list[tuple[int, ...]] = [
        (n,) for n in sorted(strokes, key=lambda n: -max(_sides(boxes[n])))
    ]

    @cache
    def distance(one: int, other: int) -> float:
        """Return the distance of two marks in pixels."""
        cut = parts[_union([boxes[one], boxes[other]])]
        return float(ndimage.distance_transform_edt(cut != one + 1)[cut == other + 1].min())

    @cache  # most pairs are compared again after each merge
    def belong_together(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
        gap = _max_gap(*(_union([boxes[n] for n in group]) for group in (one, other)))
        return any(
            max(_gaps(boxes[n], boxes[m])) <= gap and distance(n, m) <= gap
            for n in one
            for m in other
        )

    def find_pair() -> tuple[int, int] | None:
        pairs = combinations(range(len(groups)), 2)
        return next(((i, j) for i, j in pairs if belong_together(groups[i], groups[j])), None)

    while pair := find_pair():
        i, j = pair
        groups[i] += groups.pop(j)
    return groups


def _max_gap(a: tuple[slice, slice], b: tuple[slice, slice]) -> float:
    """Return the maximum distance of strokes in two boxes that belong together; −1 for none."""
    overlap = all(p.start < q.stop and q.start < p.stop for p, q in zip(a, b, strict=True))
    max_gap = (2 if overlap else 1) * MAX_GAP * min(max(_sides(a)), max(_sides(b)))
    gaps = _gaps(a, b)
    tall = min(_sides(a)[0], _sides(b)[0]) > 0.5 * max(_sides(a)[0], _sides(b)[0])
    beside = tall and -gaps[1] < 0.3 * min(_sides(a)[1], _sides(b)[1])
    return -1 if beside or max(gaps) > max_gap else max_gap


def _gaps(a: tuple[slice, slice], b: tuple[slice, slice]) -> list[int]:
    """Return the distances of two boxes vertically and horizontally; negative if they overlap."""
    return [max(p.start, q.start) - min(p.stop, q.stop) for p, q in zip(a, b, strict=True)]


def _union(boxes: list[tuple[slice, slice]]) -> tuple[slice, slice]:
    rows, columns = zip(*boxes, strict=True)
    return (
        slice(min(s.start for s in rows), max(s.stop for s in rows)),
        slice(min(s.start for s in columns), max(s.stop for s in columns)),
    )
