"""Convert a photo or drawing of a digit to an image in the format of MNIST.

The steps from a photo to 28×28 bytes:

1. Separate ink from paper. Ink is what differs from the paper in any color. The paper is modeled as
   a smooth surface fitted to the picture, because photos are rarely lit evenly.
2. Remove what is fainter than the noise or too small to be part of the digit.
3. Thicken strokes that are thinner than those of MNIST, because step 4 would make them vanish.
4. Scale the digit to 20×20 pixels, keeping its aspect ratio, and move its center of mass to the
   center of 28×28 pixels, as was done for MNIST itself (LeCun et al. 1998).
"""

import math
import os
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from mnist_accel.errors import DataError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
MAX_PIXELS = 80_000_000
# Photos are first reduced to this number of pixels on their longer side.
WORKING_SIZE = 1024

IMAGE_SIZE, BOX_SIZE = 28, 20
# Measured on the 10 000 test images of MNIST: the centers of mass lie at pixel 14.0, not 13.5, in
# both directions. Stroke widths are 0.10 to 0.31 of the longer side of the digit, median 0.13.
CENTER = 14.0
# Strokes thinner than the first fraction of the longer side are thickened to the second.
MIN_STROKE_WIDTH, TARGET_STROKE_WIDTH = 0.08, 0.12

# The strongest ink must differ from the paper by more than MIN_CONTRAST, as a fraction of the range
# from black to white, and by more than MIN_NOISE_RATIO standard deviations of the noise.
MIN_CONTRAST = 0.04
MIN_NOISE_RATIO = 8.0

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]


def read_digit_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Return the digit in an image file as uint8 (28, 28), 0 for paper and 255 for ink.

    Accepts PNG, JPEG, BMP, GIF and WebP in any size and color mode, dark on light or light on dark.

    Raises:
        DataError: the file is missing, damaged, not an image, larger than `MAX_PIXELS` pixels, or
            blank.
    """
    picture = _load(Path(path))
    ink = _find_ink(picture)
    if ink is None:
        raise DataError(
            f"{path} shows no digit: nothing differs enough from the background; "
            "use a picture of one digit with more contrast"
        )
    return _normalize(_thicken(ink))


def _load(path: Path) -> FloatArray:
    """Return an image file as (H, W, channels) in 0…1, reduced to the working size."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of unusual metadata, which is irrelevant here, and of large images, which
            # the check of MAX_PIXELS rejects.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                # The JPEG decoder may skip detail that the reduction would average away.
                image.draft(None, (2 * WORKING_SIZE, 2 * WORKING_SIZE))
                image.load()
                return _to_fractions(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; give the path of a PNG or JPEG image") from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{path} has more than {MAX_PIXELS // 1_000_000} million pixels; shrink or crop it"
        ) from None
    except UnidentifiedImageError:
        raise DataError(
            f"{path} is not an image in one of the formats {', '.join(FORMATS)}"
        ) from None
    # Pillow's decoders raise any of these for damaged files.
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"cannot read {path} as an image: {reason.splitlines()[0]}") from error


def _to_fractions(image: Image.Image) -> FloatArray:
    """Convert an image of any mode to (H, W, channels) in 0…1, reduced to the working size."""
    if image.mode.startswith("I"):  # 16-bit grayscale
        image = Image.fromarray(np.asarray(image, dtype=np.float32) / 65535)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode != "L":
        image = image.convert("L" if image.mode == "1" else "RGB")
    shrink = WORKING_SIZE / max(image.size)
    if shrink < 1:
        size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
        image = image.resize(size, Image.Resampling.BOX)
    values = np.array(image, dtype=np.float32)
    if image.mode != "F":
        values /= 255
    values = values.reshape(*values.shape[:2], -1)
    return _without_transparency(values) if image.mode == "RGBA" else values


def _without_transparency(rgba: FloatArray) -> FloatArray:
    """Blend a picture (H, W, 4) with a background color on which its ink is visible."""
    color, alpha = rgba[..., :3], rgba[..., 3:]
    opaque = color[alpha[..., 0] > 0.5]
    if len(opaque) in (0, alpha.size):
        return color * alpha
    one_color = np.ptp(np.quantile(opaque, (0.05, 0.95), axis=0), axis=0).max() < 0.1
    if one_color or len(opaque) < 0.5 * alpha.size:
        return alpha  # strokes on an empty layer: opacity shows their shape
    return color * alpha + np.median(opaque, axis=0) * (1 - alpha)


def _find_ink(picture: FloatArray) -> FloatArray | None:
    """Return the ink of a picture (H, W, channels), cropped, in 0…1; None if it is blank."""
    size = max(picture.shape[:2])
    difference = picture - _fit_paper(picture)
    # The sum of cubed differences points from the color of the paper to that of the ink: it keeps
    # their sign, and symmetric noise cancels out.
    strength = np.sum(difference**2, axis=2, keepdims=True)
    direction = np.sum(strength * difference, axis=(0, 1))
    length = np.linalg.norm(direction)
    if not length:
        return None
    direction /= length
    blur = size / 500

    # Ink satisfies two conditions. It differs from the fitted paper, unlike gradual shading.
    # It is narrower than the widest possible stroke, unlike a shadow.
    from_paper = ndimage.gaussian_filter(difference @ direction, blur)
    shade = ndimage.gaussian_filter(picture @ direction, blur)
    max_stroke = max(3, size // 3)
    wide = ndimage.maximum_filter(ndimage.minimum_filter(shade, max_stroke), max_stroke)
    ink: FloatArray = np.minimum(from_paper, shade - wide)

    noise = _estimate_noise(from_paper, lag=max(1, size // 60))
    peak = ink.max()
    if not peak > max(MIN_CONTRAST, MIN_NOISE_RATIO * noise):
        return None
    strokes = _largest_parts(ink, ink > max(0.1 * peak, 4 * noise))
    floor, full = 2 * noise, np.quantile(ink[strokes], 0.9)
    ink = np.where(strokes, np.clip((ink - floor) / (full - floor), 0, 1), 0)
    return _crop(ink)


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


def _crop(ink: FloatArray) -> FloatArray:
    """Return the smallest rectangle of `ink` that contains all values above 0.1."""
    rows = np.flatnonzero((ink > 0.1).any(axis=1))
    columns = np.flatnonzero((ink > 0.1).any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _thicken(ink: FloatArray) -> FloatArray:
    """Widen strokes that are thinner than those of MNIST to the usual width there."""
    size = max(ink.shape)
    mask = ink > 0.3
    # In a bar of width w, the mean distance to the nearest edge is w / 4.
    inside = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1][mask]
    width = 4 * np.mean(inside - 0.5)
    if width >= MIN_STROKE_WIDTH * size:
        return ink
    growth = (TARGET_STROKE_WIDTH * size - width) / 2
    margin = int(np.ceil(growth)) + 1
    distance = ndimage.distance_transform_edt(~np.pad(mask, margin))
    return _crop(np.maximum(np.pad(ink, margin), np.clip(growth + 1 - distance, 0, 1)))


def _normalize(ink: FloatArray) -> NDArray[np.uint8]:
    """Scale cropped ink to the box, and center its mass, as uint8 (28, 28)."""
    scale = BOX_SIZE / max(ink.shape)
    height, width = (max(1, round(side * scale)) for side in ink.shape)
    # The box filter averages exact areas. For enlarging it would produce visible squares.
    method = Image.Resampling.BOX if scale <= 1 else Image.Resampling.BILINEAR
    digit = np.asarray(Image.fromarray(ink.astype(np.float32)).resize((width, height), method))
    digit = digit / digit.max()

    mass = digit.sum()
    middle_y = np.arange(height) @ digit.sum(axis=1) / mass
    middle_x = np.arange(width) @ digit.sum(axis=0) / mass
    top = int(np.clip(round(CENTER - middle_y), 0, IMAGE_SIZE - height))
    left = int(np.clip(round(CENTER - middle_x), 0, IMAGE_SIZE - width))
    image = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    image[top : top + height, left : left + width] = np.rint(255 * digit)
    return image
