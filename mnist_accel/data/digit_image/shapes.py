"""Measures of the shape of a mark, given as a mask (H, W)."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull

from mnist_accel.data.digit_image.loading import Mask

# The limits were measured on MNIST digits with strokes up to twice as thick. Their strokes are
# at most 3.2 times as long as the longer side and enclose at most three areas. Digits at least half
# as wide as high, without a hole, cover at most 0.92 of their convex hull.
MAX_LENGTH = 4.0
MAX_HOLES = 4
MIN_SOLID_ASPECT = 0.5
MAX_SOLIDITY = 0.95
# With their holes filled, MNIST digits that have holes cover at most 0.83 of the smallest rectangle
# around them, and sheets seen from above at least 0.9.
MIN_RECTANGLE = 0.87


def stroke_width(mask: Mask) -> float:
    """Return the mean width of the strokes of a mark in pixels."""
    inside = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1][mask]
    # In a bar of width w, the mean distance to the nearest edge is w / 4.
    return 4 * float(np.mean(inside - 0.5)) + 0.5


def fill_holes(mask: Mask) -> Mask:
    """Return a mask with the areas that it encloses."""
    # Much faster than `ndimage.binary_fill_holes`, which dilates step by step.
    zones, _ = ndimage.label(~np.pad(mask, 1))
    filled: Mask = (zones != zones[0, 0])[1:-1, 1:-1]
    return filled


def is_frame(mask: Mask, stroke: float) -> bool:
    """Return whether lines run along the sides of a mark.

    Thick lines must run along all sides. Of thin lines, three are enough, or two that meet in a
    corner, such as the axes of a plot.
    """
    size = max(mask.shape)
    thin = stroke < 0.12 * size
    covered = []
    for turns in range(4):
        turned = np.rot90(mask, turns)
        depth = max(2, round((0.1 if thin else 0.05) * turned.shape[0]))
        covered.append(float(turned[:depth].any(axis=0).mean()))
    if not thin:
        return min(covered) > 0.95
    pairs = [min(covered[i], covered[(i + 1) % 4]) for i in range(4)]
    return sorted(covered)[1] > 0.85 or max(pairs) > 0.95


def is_solid(mask: Mask) -> bool:
    """Return whether a mark fills its convex hull. No digit does, except a straight stroke."""
    height, width = mask.shape
    if min(height, width) < MIN_SOLID_ASPECT * max(height, width):
        return False
    hull = ConvexHull(_corners(mask))
    return bool(mask.sum() > MAX_SOLIDITY * hull.volume)  # in 2-D, the volume is the area


def is_rectangle(mask: Mask) -> bool:
    """Return whether a mark is a rectangle with holes, such as a tilted sheet with writing."""
    filled = fill_holes(mask)
    if np.array_equal(filled, mask):
        return False
    corners = _corners(filled)
    corners = corners[ConvexHull(corners).vertices]
    turns = np.radians(np.arange(0, 90, 3))
    directions = np.stack([np.cos(turns), np.sin(turns)])
    across = np.stack([-np.sin(turns), np.cos(turns)])
    sides = [np.ptp(corners @ axes, axis=0) for axes in (directions, across)]
    return bool(filled.sum() > MIN_RECTANGLE * (sides[0] * sides[1]).min())


def _corners(mask: Mask) -> NDArray[np.int64]:
    """Return the corners (N, 2) of the first and last pixel in each row of a mark."""
    rows = np.flatnonzero(mask.any(axis=1))
    left = mask[rows].argmax(axis=1)
    right = mask.shape[1] - mask[rows, ::-1].argmax(axis=1)
    corners = np.array([(row, x) for x in (left, right) for row in (rows, rows + 1)])
    return corners.transpose(0, 2, 1).reshape(-1, 2)


def has_many_strokes(mask: Mask) -> bool:
    """Return whether the strokes of a mark are longer, or enclose more areas, than in a digit."""
    size = max(mask.shape)
    length = mask.sum() / stroke_width(mask)
    zones, _ = ndimage.label(~np.pad(mask, 1))
    areas = np.bincount(zones.ravel())[1:]
    holes = np.count_nonzero(areas > (0.04 * size) ** 2) - 1  # one zone is the background
    return bool(length > MAX_LENGTH * size or holes > MAX_HOLES)
