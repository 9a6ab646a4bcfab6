"""Decides which marks on a page are digits: by size, arrangement and shape.

A figure is a mark, or several marks that belong together, that may be a digit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mnist_accel.data.digit_image.boxes import (
    Box,
    area,
    gaps,
    grown,
    is_mostly_inside,
    sides,
    size,
    union,
)
from mnist_accel.data.digit_image.groups import group_strokes
from mnist_accel.data.digit_image.likeness import resembles_digit
from mnist_accel.data.digit_image.loading import Mask
from mnist_accel.data.digit_image.marks import Mark, fault_of, find_marks
from mnist_accel.data.digit_image.normalize import to_mnist
from mnist_accel.data.digit_image.pages import Page
from mnist_accel.data.digit_image.shapes import (
    fill_holes,
    has_many_strokes,
    is_solid,
    stroke_width,
)

MIN_SIZE = 0.075  # of a figure, as a fraction of the longer side of the picture; less is dirt
MIN_RELATIVE_SIZE = 0.4  # of the largest figure; smaller marks are dirt, or labels of a plot
# More marks than MAX_MARKS are a text or a texture. Marks smaller than MIN_MARK_SIZE, as a fraction
# of the size of the largest figure, are not counted.
MAX_MARKS = 24
MIN_MARK_SIZE = 0.25
# 99.9 % of the digits of MNIST are at most 1.7 times as wide as high, and have at most four parts.
MIN_ASPECT = 0.55
MAX_PARTS = 4
UNLIKE_DIGIT = "a shape unlike a digit"
MIN_SIZE_IN_ROW = 0.6  # height of a digit and its common rows with another one of its row
MIN_UNLIKE_SIZE = 0.6  # of the largest digit; a smaller shape unlike a digit is ignored
MAX_PAGE_STROKE = 0.2  # stroke width, as a fraction of the size; a sheet of paper has more
# The shorter side of a frame or sheet with marks outside, as a fraction of the picture.
MIN_FRAME = 0.25


@dataclass(frozen=True, eq=False)
class Figure:
    """Marks that may be a digit.

    Attributes:
        page: the page they are on.
        mask: their pixels, (H, W).
        box: rows and columns.
        is_digit: whether they resemble a digit, unlike a scribble, a QR code or touching digits.
    """

    page: Page
    mask: Mask
    box: Box
    is_digit: bool

    @property
    def size(self) -> int:
        """The longer side in pixels."""
        return size(self.box)


def find_figures(pages: list[Page], *, seen: set[str]) -> list[Figure]:
    """Return the digits on pages, from left to right; none if there are also other large shapes.

    Args:
        pages: the largest first. An area that a figure encloses, such as in a zero, is not a page.
        seen: set to which the names of other marks are added, such as "a frame".
    """
    figures: list[Figure] = []
    for page in pages:
        for figure in _figures_on(page, seen):
            if not any(is_mostly_inside(figure.box, other.box) for other in figures):
                figures = [f for f in figures if not _may_complete(figure, f)] + [figure]
    largest = max((figure.size for figure in figures if figure.is_digit), default=0)
    large = [figure for figure in figures if figure.size >= MIN_RELATIVE_SIZE * largest]
    if any(not f.is_digit and f.size > MIN_UNLIKE_SIZE * largest for f in large):
        return []
    digits = [figure for figure in large if figure.is_digit]
    return sorted(digits, key=lambda figure: figure.box[1].start)


def complete_parts(figures: list[Figure], parts: list[Figure]) -> bool:
    """Return whether `figures` contain all of `parts` and additional marks."""
    owners = _owners(figures, parts)
    if owners is None:
        return False
    return len(figures) < len(parts) or any(
        area(owner.box) > 1.15 * area(part.box) for owner, part in zip(owners, parts, strict=True)
    )


def continue_rows(figures: list[Figure], parts: list[Figure]) -> bool:
    """Return whether `figures` are `parts` and more figures of their height in the same rows."""
    owners = _owners(figures, parts)
    more = [figure for figure in figures if owners is not None and figure not in owners]
    return bool(more) and all(any(_share_row(one, part) for part in parts) for one in more)


def _share_row(one: Figure, other: Figure) -> bool:
    """Return whether two figures have similar heights and mostly the same rows."""
    smaller, larger = sorted(sides(figure.box)[0] for figure in (one, other))
    common = -gaps(one.box, other.box)[0]
    return smaller > MIN_SIZE_IN_ROW * larger and common > MIN_SIZE_IN_ROW * smaller


def _owners(figures: list[Figure], parts: list[Figure]) -> list[Figure] | None:
    """Return the figure that contains each part; None if there is a part without one."""
    found = [next((f for f in figures if _may_complete(f, part)), None) for part in parts]
    owners = [figure for figure in found if figure is not None]
    return owners if len(owners) == len(parts) else None


def _may_complete(figure: Figure, part: Figure) -> bool:
    """Return whether a figure contains a part in its box, and may be the digit of this part.

    This is so if both are on the same page, or the figure is the page of the part or encloses it.
    """
    if not is_mostly_inside(part.box, figure.box):
        return False
    areas = [np.count_nonzero(f.page.hull) for f in (figure, part)]
    if max(areas) < 1.3 * min(areas):
        return True
    if stroke_width(figure.mask[figure.box]) >= MAX_PAGE_STROKE * figure.size:
        return False  # the figure is a sheet
    is_page = np.count_nonzero(part.page.hull & figure.mask) > 0.5 * areas[1]
    enclosed = fill_holes(figure.mask) & ~figure.mask
    is_paper_in_loop = np.count_nonzero(enclosed & part.mask) > 0.8 * np.count_nonzero(part.mask)
    return bool(is_page or is_paper_in_loop)


def _figures_on(page: Page, seen: set[str]) -> list[Figure]:
    """Return the figures on a page; add the names of other marks to `seen`."""
    marks = find_marks(page)
    largest = max((mark.size for mark in marks), default=0)
    faults = {mark: fault for mark in marks if (fault := fault_of(mark, marks, page))}
    # A small mark that is no stroke may be the end of one.
    ends = {mark for mark in faults if mark.size < MIN_RELATIVE_SIZE * largest}
    seen.update(fault for mark, fault in faults.items() if mark not in ends)
    longer_side = max(page.marks.shape)
    frames = [mark.box for mark in faults if min(sides(mark.box)) > MIN_FRAME * longer_side]
    figures = []
    for group in group_strokes([mark for mark in marks if mark not in faults or mark in ends]):
        if 2 * _pixels(mark for mark in group if mark in ends) > _pixels(group):
            continue  # ends are smaller than the stroke
        box = union(mark.box for mark in group)
        fault = _fault_of_group(group, box, page)
        if not fault and any(_is_label(box, frame) for frame in frames):
            fault = "small marks outside a frame"
        if fault:
            seen.add(fault)
        if fault in ("", UNLIKE_DIGIT):
            figures.append(Figure(page, _mask(group, page), box, is_digit=not fault))
    size_limit = MIN_MARK_SIZE * max((figure.size for figure in figures), default=0)
    if sum(mark.size > size_limit for mark in marks) > MAX_MARKS:
        seen.add("a texture or many marks")
        return []
    return figures


def _pixels(marks: Iterable[Mark]) -> int:
    return sum(int(mark.mask.sum()) for mark in marks)


def _mask(marks: Iterable[Mark], page: Page) -> Mask:
    """Return the pixels of marks in the picture, (H, W)."""
    mask = np.zeros_like(page.marks)
    for mark in marks:
        mask[mark.box] |= mark.mask
    return mask


def _fault_of_group(group: Sequence[Mark], box: Box, page: Page) -> str:
    """Return a name for a group of marks that is not a digit; "" if the group may be a digit.

    Args:
        group: the marks.
        box: their rows and columns.
        page: the page they are on.
    """
    height, width = sides(box)
    if size(box) < MIN_SIZE * max(page.marks.shape):
        return "marks that are too small"
    if height < MIN_ASPECT * width:
        return "a dash or a shape wider than a digit"
    if len(group) > MAX_PARTS:
        return "scattered marks"
    mask = _mask(group, page)[box]
    if is_solid(mask):
        return "an area"
    if has_many_strokes(mask):
        return UNLIKE_DIGIT
    strength = np.where(mask, page.strength[box], 0)
    ink = np.clip(strength / np.quantile(strength[mask], 0.9), 0, 1)
    if resembles_digit(to_mnist(ink)):
        return ""
    return "an area" if stroke_width(mask) >= MAX_PAGE_STROKE * size(box) else UNLIKE_DIGIT


def _is_label(box: Box, frame: Box) -> bool:
    """Return whether a figure is small and outside a frame, as the numbers at axes are."""
    margin = round(0.08 * size(frame))  # the ticks of axes extend outside
    inside = grown(frame, -margin)
    return size(box) < 0.25 * size(frame) and not is_mostly_inside(box, inside)
