"""Read a person's picture of a digit as an image like those of MNIST.

The way from a photo to 28×28 bytes:

1. ink is what differs from the paper, whatever the two colours are: the paper is a smooth
   surface fitted to the picture, since light is seldom even;
2. what is fainter than the noise, or too small to be part of the digit, is wiped off;
3. strokes thinner than a pen's in MNIST are thickened, or they would vanish in the next step;
4. the digit is fitted into 20×20, its aspect ratio kept, and its centre of mass is put at the
   centre of 28×28, as was done for MNIST itself (LeCun et al. 1998).
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
# A photo is reduced to this many pixels on its longer side before anything is computed.
WORKING_SIZE = 1024

FIELD, BOX = 28, 20
# Measured on the 10 000 test images: their centres of mass lie at pixel 14.0, not 13.5, in both
# directions, and strokes are 0.10 to 0.31 of the longer side of the digit wide, 0.13 in the middle.
CENTER = 14.0
THINNEST_STROKE, PEN = 0.08, 0.12

# Differences from the paper in fractions of the range from black to white.
FAINTEST_INK = 0.04
NOISE_DEVIATIONS = 8.0

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]


def read_digit_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read a picture of one digit as (28, 28) bytes, 0 for paper and 255 for ink.

    Takes PNG, JPEG, BMP, GIF and WebP of any size and colour mode, dark on light or light on dark.

    Raises:
        DataError: the file is missing, no image, damaged, larger than `MAX_PIXELS` pixels, or
            shows nothing.
    """
    picture = _load(Path(path))
    ink = _find_ink(picture)
    if ink is None:
        raise DataError(
            f"{path} shows no digit: nothing stands out from the background; "
            "give a picture of one digit in a colour that differs from its paper"
        )
    return _normalise(_thicken(ink))


def _load(path: Path) -> FloatArray:
    """Decode an image file to (H, W, channels) fractions of 1 of working size."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata and of sizes that MAX_PIXELS refuses anyway; neither
            # says anything about the digit.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                # Lets the JPEG decoder skip detail that would be averaged away.
                image.draft(None, (2 * WORKING_SIZE, 2 * WORKING_SIZE))
                image.load()
                return _to_fractions(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; give the path of a PNG or JPEG image") from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{path} has more than {MAX_PIXELS // 1_000_000} million pixels; reduce or crop it"
        ) from None
    except UnidentifiedImageError:
        raise DataError(f"{path} is no image in one of the formats {', '.join(FORMATS)}") from None
    # Pillow's decoders meet damage with any of these.
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"cannot read {path} as an image: {reason.splitlines()[0]}") from error


def _to_fractions(image: Image.Image) -> FloatArray:
    """Convert an image of any mode to (H, W, channels) fractions of 1 of working size."""
    if image.mode.startswith("I"):  # 16 bits of grey
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
    """Lay a picture with transparent parts on paper on which its ink can be seen."""
    color, alpha = rgba[..., :3], rgba[..., 3:]
    opaque = color[alpha[..., 0] > 0.5]
    if len(opaque) in (0, alpha.size):
        return color * alpha
    one_color = np.ptp(np.quantile(opaque, (0.05, 0.95), axis=0), axis=0).max() < 0.1
    if one_color or len(opaque) < 0.5 * alpha.size:
        return alpha  # strokes on an empty layer: their shape is where they are opaque
    return color * alpha + np.median(opaque, axis=0) * (1 - alpha)


def _find_ink(picture: FloatArray) -> FloatArray | None:
    """Cut the ink out of a picture (H, W, channels), as fractions of 1; None if there is none."""
    size = max(picture.shape[:2])
    difference = picture - _fit_paper(picture)
    # Cubed, the differences point from the paper's colour to the ink's; noise cancels out.
    strength = np.sum(difference**2, axis=2, keepdims=True)
    direction = np.sum(strength * difference, axis=(0, 1))
    length = np.linalg.norm(direction)
    if not length:
        return None
    direction /= length
    blur = size / 500

    # Ink differs from the paper as a whole, which light that falls off smoothly does not; and it
    # is narrower than a stroke can be, which a shadow is not.
    from_paper = ndimage.gaussian_filter(difference @ direction, blur)
    shade = ndimage.gaussian_filter(picture @ direction, blur)
    widest = max(3, size // 3)
    wide = ndimage.maximum_filter(ndimage.minimum_filter(shade, widest), widest)
    ink: FloatArray = np.minimum(from_paper, shade - wide)

    noise = _estimate_noise(from_paper, lag=max(1, size // 60))
    peak = ink.max()
    if not peak > max(FAINTEST_INK, NOISE_DEVIATIONS * noise):
        return None
    strokes = _largest_parts(ink, ink > max(0.1 * peak, 4 * noise))
    floor, full = 2 * noise, np.quantile(ink[strokes], 0.9)
    ink = np.where(strokes, np.clip((ink - floor) / (full - floor), 0, 1), 0)
    return _crop(ink)


def _fit_paper(picture: FloatArray) -> FloatArray:
    """Fit a quadratic surface to each channel of (H, W, channels), regardless of the ink.

    Weighted least squares, in which a pixel counts the less the farther it is from the surface.
    The scale of "far" narrows from round to round, so the surface settles on the paper, as the
    largest group of pixels that agree, and ink and shadows lose all influence (graduated
    non-convexity: Blake and Zisserman, Visual Reconstruction, 1987).
    """
    height, width, channels = picture.shape
    step = max(1, max(height, width) // 64)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    one = np.ones((height, width, 1), dtype=np.float32)
    basis = np.concatenate([one, x * one, y * one, x * x * one, x * y, y * y * one], axis=2)
    terms = basis[::step, ::step].reshape(-1, 6).astype(np.float64)
    values = picture[::step, ::step].reshape(-1, channels).astype(np.float64)
    # Near the border there is more paper than ink even where the digit fills the picture.
    trust = 1 + 9 * (np.abs(terms[:, 1:3]).max(axis=1, keepdims=True) > 0.9)
    deviation = np.zeros((len(values), 1))
    for scale in np.geomspace(1, 0.03, 20):
        weighted = (terms * trust / (deviation**2 + scale**2)).T
        # A slight pull towards flat: or else the surface bends through a digit that fills most
        # of the picture. (It also settles the terms that a picture one pixel wide leaves open.)
        pull = 0.02 * weighted[0].sum() * np.diag([0, 1, 1, 1, 1, 1])
        coefficients = np.linalg.solve(weighted @ terms + pull, weighted @ values)
        deviation = np.linalg.norm(values - terms @ coefficients, axis=1, keepdims=True)
    return basis @ coefficients.astype(np.float32)


def _estimate_noise(values: FloatArray, *, lag: int) -> float:
    """Estimate the standard deviation of the noise of (H, W).

    From the second differences along both axes, whose standard deviation is sqrt(6) times as
    large. Their lower quartile is used, as it is the least disturbed by ink, and pixels so far
    apart that neither a blur nor the compression of a JPEG has made them alike.
    """
    quartile_of_normal = 0.3186
    along_y = values[2 * lag :] - 2 * values[lag:-lag] + values[: -2 * lag]
    along_x = values[:, 2 * lag :] - 2 * values[:, lag:-lag] + values[:, : -2 * lag]
    second = np.abs(np.concatenate([along_y.ravel(), along_x.ravel()]))
    if not len(second):
        return 0.0
    return float(np.quantile(second, 0.25) / (math.sqrt(6) * quartile_of_normal))


def _largest_parts(ink: FloatArray, mask: Mask) -> Mask:
    """Keep of `mask` the connected parts with at least a tenth of the ink of the largest."""
    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    amounts = ndimage.sum_labels(ink, parts, np.arange(count + 1))
    amounts[0] = 0
    kept: Mask = (amounts >= 0.1 * amounts.max())[parts] & mask
    return kept


def _crop(ink: FloatArray) -> FloatArray:
    rows = np.flatnonzero((ink > 0.1).any(axis=1))
    columns = np.flatnonzero((ink > 0.1).any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _thicken(ink: FloatArray) -> FloatArray:
    """Widen strokes that are thinner than those of MNIST to the width of its pen."""
    size = max(ink.shape)
    mask = ink > 0.3
    # Over a bar of width w, the distance to its edge is w / 4 in the mean.
    inside = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1][mask]
    width = 4 * np.mean(inside - 0.5)
    if width >= THINNEST_STROKE * size:
        return ink
    growth = (PEN * size - width) / 2
    margin = int(np.ceil(growth)) + 1
    distance = ndimage.distance_transform_edt(~np.pad(mask, margin))
    return _crop(np.maximum(np.pad(ink, margin), np.clip(growth + 1 - distance, 0, 1)))


def _normalise(ink: FloatArray) -> NDArray[np.uint8]:
    """Fit cropped ink into the box and centre it in the field."""
    scale = BOX / max(ink.shape)
    height, width = (max(1, round(side * scale)) for side in ink.shape)
    # The box filter is the exact average over areas; enlarging, it would give blocks.
    method = Image.Resampling.BOX if scale <= 1 else Image.Resampling.BILINEAR
    digit = np.asarray(Image.fromarray(ink.astype(np.float32)).resize((width, height), method))
    digit = digit / digit.max()

    mass = digit.sum()
    middle_y = np.arange(height) @ digit.sum(axis=1) / mass
    middle_x = np.arange(width) @ digit.sum(axis=0) / mass
    top = int(np.clip(round(CENTER - middle_y), 0, FIELD - height))
    left = int(np.clip(round(CENTER - middle_x), 0, FIELD - width))
    field = np.zeros((FIELD, FIELD), dtype=np.uint8)
    field[top : top + height, left : left + width] = np.rint(255 * digit)
    return field
