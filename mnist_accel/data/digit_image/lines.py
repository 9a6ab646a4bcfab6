"""Straight lines across a whole picture: rulings, squares, cell borders, creases.

A line is thin, nearly straight, within 15° of the horizontal or vertical, and extends from border
to border, unlike the strokes of a digit with a margin. Lines are replaced by interpolation between
the pixels on both of their sides, so strokes that cross a line remain.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mnist_accel.data.digit_image.loading import FloatArray, Mask, reduced_shape, resize

SEARCH_SIZE = 400  # lines are searched in a copy with this number of pixels on the longer side
MAX_SLOPE = 0.27  # tangent of 15°
MAX_WIDTH = 0.035  # of a line, as a fraction of the longer side of the picture
MIN_COVERAGE = 0.6  # fraction of the pixels of a line that must differ from both of its sides
MIN_STEP = 0.02  # minimum difference of a line from its sides, as a fraction of black to white
MAX_LINES = 80
_RADIX = 1024


@dataclass(frozen=True)
class Line:
    """A line from the top to the bottom of a picture, straight or slightly curved.

    Attributes:
        bend: coefficients of a polynomial, the highest power first. It gives the column for each
            row; rows extend from −1 to 1, columns are fractions of the height of the picture.
    """

    bend: tuple[float, ...]

    def columns(self, height: int) -> NDArray[np.floating]:
        """Return the column of the line in each row (H,), in pixels."""
        columns: NDArray[np.floating] = np.polyval(self.bend, np.linspace(-1, 1, height))
        return height * columns


def remove_lines(picture: FloatArray) -> tuple[FloatArray, int]:
    """Return a picture (H, W, channels) without the lines across it, and their number."""
    total = 0
    for _ in range(2):
        upright = np.ascontiguousarray(picture)
        small = resize(upright, reduced_shape(upright, SEARCH_SIZE))
        lines = _find_upright(small)
        for line in lines:
            upright = _erase(upright, line)
        total += len(lines)
        picture = upright.transpose(1, 0, 2)
    return picture, total


def _find_upright(picture: FloatArray) -> list[Line]:
    """Return the lines from top to bottom of a picture (H, W, channels), the clearest first."""
    height, width = picture.shape[:2]
    if min(height, width) < 24:
        return []
    candidates = [
        (covered, columns, ridges)
        for ridges in _ridges(picture)
        for covered, columns in _straight(ridges)
    ]
    kept: list[NDArray[np.float64]] = []
    lines = []
    for _, columns, ridges in sorted(candidates, key=lambda candidate: -candidate[0]):
        if len(kept) < MAX_LINES and all(_distance(columns, other) > 4 for other in kept):
            kept.append(columns)
            lines.append(_fit(ridges, columns))
    return lines


def _distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the smallest distance of two lines; 0 if they cross."""
    difference = one - other
    crosses = difference[0] * difference[-1] <= 0
    return 0.0 if crosses else float(np.abs(difference).min())


def _ridges(picture: FloatArray) -> list[Mask]:
    """Return masks (H, W) of pixels darker, and of pixels lighter, than both sides."""
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
    # Noise appears in both masks; lines in one of them.
    noise = np.median(np.maximum(dark, light))
    limit = max(MIN_STEP, 3 * noise)
    return [dark > limit, light > limit]


def _straight(ridges: Mask) -> list[tuple[float, NDArray[np.float64]]]:
    """Return coverage and columns (H,) of the lines on which most of `ridges` (H, W) is set.

    The rows are shifted in proportion to their number, for each slope, so that lines of this slope
    become columns, whose coverage is then a mean (a Radon transform by shearing).
    """
    height, width = ridges.shape
    end = max(1, height // 8)
    if max(np.count_nonzero(ridges[:end]), np.count_nonzero(ridges[-end:])) < MIN_COVERAGE * end:
        return []
    rows = np.arange(height) - (height - 1) / 2
    steps = int(np.ceil(MAX_SLOPE * height / 2))
    slopes = np.arange(-steps, steps + 1) * 2 / height
    margin = steps + 1
    # One sum counts pixels inside the picture in its low digits, and ridges in its high digits.
    tolerant = ndimage.maximum_filter1d(ridges, 3, axis=1)
    codes = np.pad(1 + _RADIX * tolerant.astype(np.int32), ((0, 0), (margin, margin))).ravel()
    starts = np.arange(height)[:, None] * (width + 2 * margin) + margin + np.arange(width)
    coverage = np.zeros((len(slopes), width), dtype=np.float32)
    for number, slope in enumerate(slopes):
        sheared = codes.take(starts + np.rint(slope * rows).astype(int)[:, None])
        parts = (sheared[:end], sheared[end:-end], sheared[-end:])
        top, middle, bottom = (np.divmod(part.sum(axis=0), _RADIX) for part in parts)
        # Both ends must be covered, unless the line leaves the picture through a side.
        enough = [(ridge >= MIN_COVERAGE * end) | (inside < end) for ridge, inside in (top, bottom)]
        length = top[1] + middle[1] + bottom[1]
        enough.append(length > MIN_COVERAGE * height)
        covered = (top[0] + middle[0] + bottom[0]) / np.maximum(length, 1)
        coverage[number] = np.where(np.all(enough, axis=0), covered, 0)
    peak = coverage >= ndimage.maximum_filter(coverage, (9, 5))
    return [
        (float(coverage[s, x]), x + slopes[s] * rows)
        for s, x in np.argwhere(peak & (coverage >= MIN_COVERAGE))
    ]


def _fit(ridges: Mask, columns: NDArray[np.float64]) -> Line:
    """Return the line through the pixels of `ridges` (H, W) near a straight line (H,)."""
    height = len(ridges)
    y, x = np.nonzero(ridges)
    rows = 2 * y / (height - 1) - 1
    bend = np.polyfit(np.linspace(-1, 1, height), columns, 1)
    for degree, reach in ((1, 4.0), (1, 3.0), (2, 3.0), (2, 2.0)):
        near = np.abs(x - np.polyval(bend, rows)) <= reach
        if np.count_nonzero(near) > height // 3:
            bend = np.polyfit(rows[near], x[near], degree)
    return Line(tuple(bend / height))


def _erase(picture: FloatArray, line: Line) -> FloatArray:
    """Return a picture (H, W, channels) in which a line is replaced by its surroundings."""
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
        mixed = left * (1 - fraction) + right * fraction
        erased[rows[inside], column[inside]] = mixed[inside]
    return erased


def _extent(picture: FloatArray, center: NDArray[np.int64]) -> tuple[int, int]:
    """Return the offsets from `center` (H,) of the paper on the left and right of a line."""
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
    step = np.nan_to_num(np.abs(profile - np.nanmedian(profile)))
    middle = reach + int(np.argmax(step[reach - 2 : reach + 3])) - 2
    parts, _ = ndimage.label(step > 0.1 * step[middle])
    covered = offsets[parts == parts[middle]]
    return int(covered[0]) - 2, int(covered[-1]) + 2
