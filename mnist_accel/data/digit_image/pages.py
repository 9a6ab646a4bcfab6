"""The paper in a picture, and the marks on it.

A page is an area of paper with everything that it encloses: the sheet on a desk, the inside of a
frame, or the whole picture. Edges separate pages. What no page encloses, such as the desk or lines
along the border, is not a mark.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mnist_accel.data.digit_image.loading import FloatArray, Mask, resize
from mnist_accel.data.digit_image.shapes import fill_holes

# Areas as fractions of the picture: a smaller page is too small for a legible digit, and smaller
# marks are noise.
MIN_PAGE_AREA = 0.02
MIN_MARKS_AREA = 0.0005
MAX_PAGES = 12  # the largest ones; it limits the time that textures take
# Edges are found at several levels of the gradient, the strongest first, each LEVEL_RATIO times the
# one before. Gradients are changes per pixel; black is 0 and white is 1.
LEVEL_RATIO = 0.6
CONTINUATION = 0.25  # level at which an edge continues, as a fraction of the one at which it starts
MIN_GRADIENT = 0.004  # 1 of 255 gray values; smaller changes are rounding
# Edges are stronger than the noise by this factor. The median gradient measures the noise, because
# most pixels are no edges; it is 1.18 standard deviations of the noise in one direction.
MIN_NOISE_RATIO = 4.5
MEDIAN_OF_NOISE = 1.18
# A pixel belongs to a mark if it differs from the paper by this fraction of the strongest ink: less
# than half, so that faint parts of a stroke are included.
MARK_LEVEL = 0.35


@dataclass(frozen=True)
class Page:
    """An area of paper and the marks on it.

    Attributes:
        hull: the paper and everything that it encloses, (H, W).
        paper: the colors of the paper, also below the marks, (H, W, channels).
        direction: unit vector (channels,) from the color of the paper to that of the ink.
        darkness: the picture projected on `direction`, (H, W).
        strength: difference of `darkness` from that of the paper, (H, W).
        marks: the pixels with ink, (H, W).
        contrast: range of `darkness` in the picture, without its extremes.
    """

    hull: Mask
    paper: FloatArray
    direction: FloatArray
    darkness: FloatArray
    strength: FloatArray
    marks: Mask
    contrast: float


def find_pages(picture: FloatArray, *, with_border: bool) -> Iterator[list[Page]]:
    """Yield the pages of a picture (H, W, channels) at each level of its edges.

    Args:
        picture: the picture.
        with_border: whether pages continue beyond the border of the picture, and so enclose marks
            that touch it.
    """
    gradient = np.sqrt(
        np.sum(
            [ndimage.gaussian_gradient_magnitude(c, 1.0) ** 2 for c in np.moveaxis(picture, 2, 0)],
            axis=0,
        )
    )
    lowest = max(MIN_GRADIENT, MIN_NOISE_RATIO * float(np.median(gradient)) / MEDIAN_OF_NOISE)
    level = LEVEL_RATIO**2 * float(gradient.max())
    while level > lowest:
        # Hysteresis (Canny 1986): an edge starts at the level, and continues at a lower one.
        weak = gradient > max(CONTINUATION * level, lowest)
        parts, count = ndimage.label(weak, structure=np.ones((3, 3)))
        is_edge = np.zeros(count + 1, dtype=bool)
        is_edge[parts[gradient > level]] = True
        edges = is_edge[parts]
        yield _pages_at(picture, ~edges, with_border=with_border)
        level *= LEVEL_RATIO


def _pages_at(picture: FloatArray, flat: Mask, *, with_border: bool) -> list[Page]:
    """Return a page for each connected part of `flat` (H, W), its paper; the largest page first."""
    margin = 2 if with_border else 0
    zones, _ = ndimage.label(np.pad(flat, margin, constant_values=True))
    areas = np.bincount(zones.ravel())[1:]
    large = [n for n in np.argsort(-areas)[:MAX_PAGES] if areas[n] >= MIN_PAGE_AREA * flat.size]
    inner = (slice(margin, zones.shape[0] - margin), slice(margin, zones.shape[1] - margin))
    pages = []
    for number in large:
        zone = zones == number + 1
        hull = fill_holes(zone)[inner]
        page = _page(picture, zone[inner], hull)
        if page is not None:
            pages.append(page)
    return sorted(pages, key=lambda page: -int(page.hull.sum()))


def _page(picture: FloatArray, zone: Mask, hull: Mask) -> Page | None:
    """Return the page with paper `zone`; None if it encloses nothing."""
    enclosed = hull & ~zone
    if np.count_nonzero(enclosed) < MIN_MARKS_AREA * enclosed.size:
        return None
    paper = interpolate(picture, ndimage.binary_erosion(zone, border_value=1))
    difference: FloatArray = (picture - paper) * enclosed[..., None].astype(np.float32)
    direction = ink_direction(difference)
    if direction is None:
        return None
    strength: FloatArray = difference @ direction
    peak = np.quantile(strength[strength > 0], 0.9) if (strength > 0).any() else 0
    marks = strength > MARK_LEVEL * peak
    darkness: FloatArray = picture @ direction
    contrast = float(np.ptp(np.quantile(darkness, (0.005, 0.995))))
    return Page(hull, paper, direction, darkness, strength, marks, contrast)


def ink_direction(difference: FloatArray) -> FloatArray | None:
    """Return the unit vector (channels,) from the color of paper to that of ink; None without ink.

    Args:
        difference: picture minus paper, (H, W, channels).
    """
    # The sum of cubed differences keeps their sign, and symmetric noise cancels out.
    strength = np.sum(difference**2, axis=2, keepdims=True)
    direction = np.sum(strength * difference, axis=(0, 1))
    length = np.linalg.norm(direction)
    return direction / length if length else None


def interpolate(picture: FloatArray, known: Mask) -> FloatArray:
    """Return a picture (H, W, channels) with smooth averages of `known` pixels in place of others.

    The picture is halved until all pixels are known, and enlarged again, where each size provides
    the unknown pixels of the next larger one (pull-push: Gortler et al., The Lumigraph, 1996).
    """
    weight = known[..., None].astype(np.float32)
    return _pull_push((picture * weight).astype(np.float32), weight)


def _pull_push(total: FloatArray, weight: FloatArray) -> FloatArray:
    """Return `total / weight`, with averages of neighbors where `weight` is 0."""
    mean = (total / np.maximum(weight, 1e-6)).astype(np.float32)
    missing = weight[..., 0] <= 0
    height, width = missing.shape
    if not missing.any() or max(height, width) == 1:
        return mean
    coarse = _pull_push(_halve(total), _halve(weight))
    finer = resize(coarse, (2 * coarse.shape[0], 2 * coarse.shape[1]))[:height, :width]
    filled: FloatArray = np.where(missing[..., None], finer, mean)
    return filled


def _halve(values: FloatArray) -> FloatArray:
    """Return the sums of 2×2 pixels of (H, W, channels)."""
    height, width, channels = values.shape
    even = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    blocks = even.reshape((height + 1) // 2, 2, (width + 1) // 2, 2, channels)
    sums: FloatArray = blocks.sum(axis=(1, 3))
    return sums
