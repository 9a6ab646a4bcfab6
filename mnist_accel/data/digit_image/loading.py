"""Image files as arrays (H, W, channels)."""

import io
import os
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mnist_accel.data.digit_image.source import Source, source_name
from mnist_accel.errors import DataError
from mnist_accel.util.files import as_path
from mnist_accel.util.input_files import read_limited, read_regular

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
MAX_PIXELS = 80_000_000
_MAX_BYTES = 2**28  # maximum size of a file
# Photos are first reduced to this number of pixels on their longer side.
WORKING_SIZE = 1024

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]


def load_picture(path: Source) -> FloatArray:
    """Return an image file as (H, W, channels) in 0…1, reduced to the working size."""
    name = source_name(path)
    try:
        with warnings.catch_warnings():
            # Pillow warns of unusual metadata, which is irrelevant here, and of large images, which
            # the check of MAX_PIXELS rejects.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(_read(path)), formats=FORMATS) as image:
                # Pillow's decoder for WebP needs twice the memory per pixel of the other decoders.
                limit = MAX_PIXELS // 2 if image.format == "WEBP" else MAX_PIXELS
                if image.width * image.height > limit:
                    raise Image.DecompressionBombError
                # The JPEG decoder may skip detail that the reduction would average away.
                image.draft(None, (2 * WORKING_SIZE, 2 * WORKING_SIZE))
                image.load()
                return _to_fractions(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise DataError(f"{name} does not exist; give the path of a PNG or JPEG image") from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{name} has more than {MAX_PIXELS // 1_000_000} million pixels (half as many in "
            "WebP); shrink or crop it"
        ) from None
    except UnidentifiedImageError:
        raise DataError(
            f"{name} is not an image in one of the formats {', '.join(FORMATS)}; convert it, or "
            "take a screenshot of it"
        ) from None
    # Pillow's decoders raise any of these for damaged files.
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"cannot read {name} as an image: {reason.splitlines()[0]}") from error


def _read(source: Source) -> bytes:
    """Return the content of a file or a stream.

    Raises:
        OSError: it cannot be read, is too large, or is not a regular file.
    """
    if isinstance(source, str | os.PathLike):
        return read_regular(as_path("path", source), max_bytes=_MAX_BYTES)
    return read_limited(source, max_bytes=_MAX_BYTES, name=source_name(source))


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


def reduced_shape(picture: FloatArray, size: int) -> tuple[int, int]:
    """Return height and width of a picture scaled to `size` pixels on its longer side."""
    scale = size / max(picture.shape[:2])
    return max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale))


def resize(picture: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Return a picture (H, W, channels) with height and width `shape`."""
    # The box filter averages exact areas; for enlarging it would produce visible squares.
    reduces = max(shape) < max(picture.shape[:2])
    method = Image.Resampling.BOX if reduces else Image.Resampling.BILINEAR
    channels = [
        np.asarray(Image.fromarray(np.ascontiguousarray(channel)).resize(shape[::-1], method))
        for channel in np.moveaxis(picture, 2, 0)
    ]
    return np.stack(channels, axis=2)
