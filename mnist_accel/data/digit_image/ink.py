"""Separation of ink from paper, in 0…1."""

import math

import numpy as np
from scipy import ndimage

from mnist_accel.data.digit_image.figures import Figure
from mnist_accel.data.digit_image.loading import FloatArray, Mask, resize
from mnist_accel.data.digit_image.pages import ink_direction

# The strongest ink must differ from the paper by more than MIN_CONTRAST, as a fraction of the range
# from black to white, and by more than MIN_NOISE_RATIO standard deviations of the noise.
MIN_CONTRAST = 0.04
MIN_NOISE_RATIO = 8.0


def ink_of_picture(picture: FloatArray) -> FloatArray | None:
    """Return the ink (H, W) of a picture (H, W, channels) of one digit; None if it is blank."""
    size = max(picture.shape[:2])
    difference = picture - _fit_paper(picture)
    direction = ink_direction(difference)
    if direction is None:
        return None
    blur = size / 500

    # Ink satisfies two conditions. It differs from the fitted paper, unlike gradual shading.
    # It is narrower than the widest possible stroke, unlike a shadow.
    from_paper = ndimage.gaussian_filter(difference @ direction, blur)
    shade = ndimage.gaussian_filter(picture @ direction, blur)
    max_stroke = max(3, size // 3)
    wide = ndimage.maximum_filter(ndimage.minimum_filter(shade, max_stroke), max_stroke)
    ink: FloatArray = np.minimum(from_paper, shade - wide)

    noise = _estimate_noise(from_paper, lag=max(1, size // 60))
    if not _is_visible(ink, noise):
        return None
    return _normalize(ink, _largest_parts(ink, ink > _threshold(ink, noise)), noise)


def ink_of_figure(picture: FloatArray, figure: Figure) -> FloatArray | None:
    """Return the ink (H, W) of a figure in a picture (H, W, channels); None if it is too faint.

    Args:
        picture: the picture.
        figure: a figure that was found in a copy of the picture, usually smaller.
    """
    size = max(picture.shape[:2])
    page = figure.page
    paper = resize(page.paper, picture.shape[:2])
    from_paper = ndimage.gaussian_filter((picture - paper) @ page.direction, size / 500)
    margin = max(1, round(0.06 * figure.size))
    near = ndimage.binary_dilation(figure.mask, iterations=margin)
    near, mask, hull = (_enlarge(m, picture) for m in (near, figure.mask, page.hull))
    noise = _estimate_noise(np.where(hull, from_paper, 0), lag=max(1, size // 60))
    ink = np.where(near & hull, from_paper, 0)
    if not _is_visible(ink, noise):
        return None
    parts, _ = ndimage.label(ink > _threshold(ink, noise), structure=np.ones((3, 3)))
    strokes = np.isin(parts, np.unique(parts[mask])) & (parts > 0)
    return _normalize(ink, strokes, noise) if strokes.any() else None


def _is_visible(ink: FloatArray, noise: float) -> bool:
    return bool(ink.max() > max(MIN_CONTRAST, MIN_NOISE_RATIO * noise))


def _threshold(ink: FloatArray, noise: float) -> float:
    return float(max(0.1 * ink.max(), 4 * noise))


def _normalize(ink: FloatArray, strokes: Mask, noise: float) -> FloatArray:
    """Return the ink of the strokes scaled to 0…1, and 0 elsewhere."""
    floor, full = 2 * noise, np.quantile(ink[strokes], 0.9)
    scaled: FloatArray = np.where(strokes, np.clip((ink - floor) / (full - floor), 0, 1), 0)
    return scaled


def _enlarge(mask: Mask, picture: FloatArray) -> Mask:
    """Return a mask with the size of a picture."""
    height, width = picture.shape[:2]
    rows = np.minimum(np.arange(height) * mask.shape[0] // height, mask.shape[0] - 1)
    columns = np.minimum(np.arange(width) * mask.shape[1] // width, mask.shape[1] - 1)
    enlarged: Mask = mask[rows[:, None], columns]
    return enlarged


def _fit_paper(picture: FloatArray) -> FloatArray:
    """Return a quadratic surface per channel, (H, W, channels), fitted to the paper, not the ink.

    The fit is an iteratively reweighted least squares: the weight of a pixel falls with its
    distance from the surface. The distance scale shrinks from iteration to iteration, so the
    surface converges to the paper, the largest group of consistent pixels, and ink and shadows lose
    their influence (graduated non-convexity: Blake and Zisserman, Visual Reconstruction, 1987).
    """
    height, width, channels = picture.shape
    stride = max(1, max(height, width) // 64)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    one = np.ones((height, width, 1), dtype=np.float32)
    basis = np.concatenate([one, x * one, y * one, x * x * one, x * y, y * y * one], axis=2)
    terms = basis[::stride, ::stride].reshape(-1, 6).astype(np.float64)
    values = picture[::stride, ::stride].reshape(-1, channels).astype(np.float64)
    # Pixels near the border are mostly paper, even if the digit fills the picture.
    trust = 1 + 9 * (np.abs(terms[:, 1:3]).max(axis=1, keepdims=True) > 0.9)
    deviation = np.zeros((len(values), 1))
    for scale in np.geomspace(1, 0.03, 20):
        weighted = (terms * trust / (deviation**2 + scale**2)).T
        # Regularization toward a flat surface. Without it, the surface bends through a digit that
        # fills most of the picture, and the system is singular if the picture is one pixel wide.
        regularization = 0.02 * weighted[0].sum() * np.diag([0, 1, 1, 1, 1, 1])
        coefficients = np.linalg.solve(weighted @ terms + regularization, weighted @ values)
        deviation = np.linalg.norm(values - terms @ coefficients, axis=1, keepdims=True)
    return basis @ coefficients.astype(np.float32)


def _estimate_noise(values: FloatArray, *, lag: int) -> float:
    """Return an estimate of the standard deviation of the noise in (H, W).

    The estimate comes from second differences along both axes, whose standard deviation is sqrt(6)
    times that of the noise. Their lower quartile is used, because ink affects it least. `lag` is
    the distance of the pixels; it must be so large that blur and JPEG compression do not correlate
    them.
    """
    quartile_of_normal = 0.3186
    along_y = values[2 * lag :] - 2 * values[lag:-lag] + values[: -2 * lag]
    along_x = values[:, 2 * lag :] - 2 * values[:, lag:-lag] + values[:, : -2 * lag]
    second = np.abs(np.concatenate([along_y.ravel(), along_x.ravel()]))
    if not len(second):
        return 0.0
    return float(np.quantile(second, 0.25) / (math.sqrt(6) * quartile_of_normal))


def _largest_parts(ink: FloatArray, mask: Mask) -> Mask:
    """Return the connected parts of `mask` with at least a tenth of the ink of the largest part."""
    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    amounts = ndimage.sum_labels(ink, parts, np.arange(count + 1))
    amounts[0] = 0
    kept: Mask = (amounts >= 0.1 * amounts.max())[parts] & mask
    return kept
