"""Remove straight lines across a whole picture, such as rulings, grids, cell borders and creases.

A line is thin, nearly straight and within 15° of the horizontal or vertical. It extends from border
to border, unlike the strokes of a digit with a margin. Each pixel of a line is replaced by
interpolation between the pixels on both sides of the line, so strokes that cross it remain.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

from mnist_accel.data.digit_image.loading import FloatArray, Mask, reduced_shape, resize

SEARCH_SIZE = 400  # lines are found in a copy with this number of pixels on the longer side
MIN_SIDE = 24  # no lines are searched if the shorter side of this copy has fewer pixels
MAX_SLOPE = 0.27  # tangent of 15°
MAX_WIDTH = 0.035  # width of a line, as a fraction of the longer side of the picture
MIN_COVERAGE = 0.6  # fraction of the pixels of a line that must differ from both of its sides
END = 0.03  # a line must be visible at the top and at the bottom, each this fraction of the rows
MIN_DIFFERENCE = 0.02  # between a line and both of its sides; black is 0 and white is 1
MIN_DISTANCE = 4  # distance between two lines, in pixels of the copy
MAX_LINES = 80  # lines in each direction
_RADIX = 1024  # greater than the number of rows, which is at most SEARCH_SIZE


@dataclass(frozen=True)
class Line:
    """A line from the top to the bottom of a picture, straight or slightly curved.

    Attributes:
        coefficients: coefficients of the polynomial that maps a row to the column of the line, the
            highest power first. Rows are scaled to −1…1, and columns are divided by the height of
            the picture.
    """

    coefficients: tuple[float, ...]

    def columns(self, height: int) -> NDArray[np.floating]:
        """Return the column of the line in each row (H,), in pixels."""
        columns: NDArray[np.floating] = np.polyval(self.coefficients, np.linspace(-1, 1, height))
        return height * columns


def remove_lines(picture: FloatArray) -> tuple[FloatArray, int]:
    """Return a picture (H, W, channels) without the lines across it, and the number of lines."""
    total = 0
    # The first round removes the vertical lines and transposes the picture. The second one removes
    # the horizontal lines, which are then vertical, and restores the orientation.
    for _ in range(2):
        picture = np.ascontiguousarray(picture)
        small = resize(picture, reduced_shape(picture, SEARCH_SIZE))
        lines = _find_vertical(small)
        for line in lines:
            picture = _erase(picture, line)
        total += len(lines)
        picture = picture.transpose(1, 0, 2)
    return picture, total


def _find_vertical(picture: FloatArray) -> list[Line]:
    """Return the lines from top to bottom of a picture (H, W, channels).

    They are sorted by coverage, the highest first. Of lines that are closer than MIN_DISTANCE or
    cross each other, only the first is returned.
    """
    height, width = picture.shape[:2]
    if min(height, width) < MIN_SIDE:
        return []
    candidates = [
        (coverage, columns, ridges)
        for ridges in _ridges(picture)
        for coverage, columns in _find_straight(ridges)
    ]
    kept: list[NDArray[np.float64]] = []
    lines = []
    for _, columns, ridges in sorted(candidates, key=lambda candidate: -candidate[0]):
        is_separate = all(_distance(columns, other) > MIN_DISTANCE for other in kept)
        if len(kept) < MAX_LINES and is_separate:
            kept.append(columns)
            lines.append(_fit(ridges, columns))
    return lines


def _distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the smallest distance between two lines in pixels; 0 if they cross."""
    difference = one - other
    crosses = difference[0] * difference[-1] <= 0
    return 0.0 if crosses else float(np.abs(difference).min())


def _ridges(picture: FloatArray) -> list[Mask]:
    """Return two masks (H, W) of pixels that differ from the pixels on their left and right.

    The first contains the pixels that are darker than both sides, the second the lighter ones.
    """
    height, width = picture.shape[:2]
    spacings = np.unique(np.geomspace(2, max(2, MAX_WIDTH * max(height, width)), 4).astype(int))
    dark = np.zeros((height, width), dtype=np.float32)
    light = np.zeros_like(dark)
    for spacing in spacings:
        padded = np.pad(picture, ((0, 0), (spacing, spacing), (0, 0)), mode="edge")
        left = padded[:, : -2 * spacing] - picture
        right = padded[:, 2 * spacing :] - picture
        dark = np.maximum(dark, np.minimum(left, right).max(axis=2))
        light = np.maximum(light, np.minimum(-left, -right).max(axis=2))
    # Most pixels belong to no line, so the median measures the noise.
    noise = np.median(np.maximum(dark, light))
    limit = max(MIN_DIFFERENCE, 3 * noise)
    return [dark > limit, light > limit]


def _find_straight(ridges: Mask) -> list[tuple[float, NDArray[np.float64]]]:
    """Return the straight lines from top to bottom in `ridges` (H, W).

    For each slope, the rows are shifted so that the lines with this slope become vertical. The
    coverage of a line is then the mean of a column (a Radon transform by shearing).

    Returns:
        For each line, its coverage, which is the fraction of its pixels that are set or next to a
        set pixel, and its column in each row (H,).
    """
    height, width = ridges.shape
    end = max(2, round(END * height))  # number of rows at the top, and at the bottom
    if max(np.count_nonzero(ridges[:end]), np.count_nonzero(ridges[-end:])) < MIN_COVERAGE * end:
        return []
    rows = np.arange(height) - (height - 1) / 2
    max_shift = int(np.ceil(MAX_SLOPE * height / 2))
    slopes = np.arange(-max_shift, max_shift + 1) * 2 / height
    margin = max_shift + 1
    # A pixel has the code 1, or 1 + _RADIX on a ridge, and the margin has 0. A sum of codes divided
    # by _RADIX is the number of pixels on ridges; the remainder is the number of all pixels.
    widened = ndimage.maximum_filter1d(ridges, 3, axis=1)
    codes = np.pad(1 + _RADIX * widened.astype(np.int32), ((0, 0), (margin, margin)))
    shifted = sliding_window_view(codes, width, axis=1)  # (H, shifts, W)
    shifts = margin + np.rint(slopes[:, None] * rows).astype(int)  # (slopes, H)
    # Sums of the sheared rows at the top, in the middle and at the bottom: (3, slopes, W).
    sums = np.zeros((3, len(slopes), width), np.int32)
    for row in range(height):
        part = 0 if row < end else 1 if row < height - end else 2
        sums[part] += shifted[row, shifts[:, row]]
    ridge, inside = np.divmod(sums, _RADIX)
    length = inside.sum(axis=0)
    # Both ends must be covered, unless the line leaves the picture through a side.
    ends_are_covered = ((ridge >= MIN_COVERAGE * end) | (inside < end))[[0, 2]].all(axis=0)
    is_long = length > MIN_COVERAGE * height
    covered = (ridge.sum(axis=0) / np.maximum(length, 1)).astype(np.float32)
    coverage = np.where(ends_are_covered & is_long, covered, np.float32(0))
    peak = coverage >= ndimage.maximum_filter(coverage, (9, 5))
    return [
        (float(coverage[s, x]), x + slopes[s] * rows)
        for s, x in np.argwhere(peak & (coverage >= MIN_COVERAGE))
    ]


def _fit(ridges: Mask, columns: NDArray[np.float64]) -> Line:
    """Return a line fitted to the pixels of `ridges` (H, W) near a straight line.

    Args:
        ridges: pixels that may belong to the line.
        columns: column of the straight line in each row (H,).
    """
    height = len(ridges)
    y, x = np.nonzero(ridges)
    rows = 2 * y / (height - 1) - 1
    coefficients = np.polyfit(np.linspace(-1, 1, height), columns, 1)
    # Each fit uses the pixels within `reach` of the previous one.
    for degree, reach in ((1, 4.0), (1, 3.0), (2, 3.0), (2, 2.0)):
        near = np.abs(x - np.polyval(coefficients, rows)) <= reach
        if np.count_nonzero(near) > height // 3:
            coefficients = np.polyfit(rows[near], x[near], degree)
    return Line(tuple(coefficients / height))


def _erase(picture: FloatArray, line: Line) -> FloatArray:
    """Return a picture (H, W, channels) in which a line is interpolated between its two sides."""
    height, width = picture.shape[:2]
    center = np.rint(line.columns(height)).astype(int)
    low, high = _extent(picture, center)
    rows = np.arange(height)
    before, after = center + low, center + high
    left, right = (picture[rows, np.clip(side, 0, width - 1)] for side in (before, after))
    left = np.where((before < 0)[:, None], right, left)
    right = np.where((after >= width)[:, None], left, right)
    erased = picture.copy()
    for offset in range(low + 1, high):
        fraction = np.float32((offset - low) / (high - low))
        column = center + offset
        inside = (column >= 0) & (column < width)
        between = left * (1 - fraction) + right * fraction
        erased[rows[inside], column[inside]] = between[inside]
    return erased


def _extent(picture: FloatArray, center: NDArray[np.int64]) -> tuple[int, int]:
    """Return the offsets of the paper to the left and to the right of the center of a line.

    Args:
        picture: (H, W, channels).
        center: column of the center in each row (H,).
    """
    height, width = picture.shape[:2]
    reach = max(4, round(MAX_WIDTH * max(height, width)))
    offsets = np.arange(-reach, reach + 1)
    columns = center[:, None] + offsets
    inside = (columns >= 0) & (columns < width)
    strip = picture[np.arange(height)[:, None], np.clip(columns, 0, width - 1)].mean(axis=2)
    # The median over the rows ignores strokes that cross the line.
    profile = np.array(
        [np.median(strip[ok, i]) if ok.any() else np.nan for i, ok in enumerate(inside.T)]
    )
    contrast = np.nan_to_num(np.abs(profile - np.nanmedian(profile)))
    # The column of the line with the highest contrast, at most two pixels from the center.
    middle = reach + int(np.argmax(contrast[reach - 2 : reach + 3])) - 2
    parts, _ = ndimage.label(contrast > 0.1 * contrast[middle])
    covered = offsets[parts == parts[middle]]
    return int(covered[0]) - 2, int(covered[-1]) + 2
