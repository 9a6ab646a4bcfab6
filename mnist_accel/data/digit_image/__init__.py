"""Convert a photo or drawing of digits to images in the format of MNIST.

1. `loading`: read the file; 0 is black and 1 is white. If digits fill the picture, as `crops`
   decides, steps 2 to 5 are skipped.
2. `lines`: replace lines across the whole picture, such as rulings, by the paper on their sides.
3. `search` and `pages`: find the paper and the marks that it encloses. A desk and lines along the
   border of the picture lie outside the paper.
4. `marks` and `groups`: decide which marks may be strokes, and which strokes belong together.
5. `figures`: decide which groups of strokes are digits, by size, arrangement and shape.
6. `ink`: measure how much each pixel of a digit differs from the paper.
7. `normalize`: thicken strokes that are thinner than those of MNIST, scale the digit to 20×20
   pixels, and move its center of mass to the center of 28×28 pixels, as was done for MNIST (LeCun
   et al. 1998).
8. `likeness`: refuse an image that is not like a digit. Step 5 uses it, too.
9. `separate`: count the parts of the digit that are like a digit themselves.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnist_accel.data.digit_image.source import Source, source_name
from mnist_accel.errors import DataError

if TYPE_CHECKING:
    from mnist_accel.data.digit_image.search import Digit

IMAGE_SIZE = 28


def read_digit_image(path: Source) -> NDArray[np.float32]:
    """Return the digit in an image file as float32 (28, 28), 0 for paper and 1 for ink.

    Accepts PNG, JPEG, BMP, GIF and WebP in any size and color mode, dark on light or light on dark.
    Lines, frames, shadows and what lies beside the paper are removed.

    Args:
        path: the file, or a binary stream with its content.

    Raises:
        DataError: the file is missing, damaged, not an image, or too large, or it shows no digit or
            several.
    """
    return read_digit(path).image


def read_digit_images(path: Source) -> list[NDArray[np.float32]]:
    """Return the digits in an image file from left to right, each as `read_digit_image` does.

    Raises:
        DataError: as `read_digits`.
    """
    return [digit.image for digit in read_digits(path)]


def read_digit(path: Source) -> "Digit":
    """Return the digit in an image file; arguments and errors as those of `read_digit_image`."""
    digits = read_digits(path)
    if len(digits) > 1:
        raise DataError(
            f"{source_name(path)} shows {len(digits)} separate figures, expected one digit; crop "
            "the picture to one, or read all of them with predict --all"
        )
    return digits[0]


def read_digits(path: Source) -> "list[Digit]":
    """Return the digits in an image file from left to right.

    Raises:
        DataError: the file is missing, damaged, not an image, or too large, or it shows no digit.
    """
    # Loaded on the first use, because scipy would double the time to import mnist_accel.
    from mnist_accel.data.digit_image.loading import load_picture
    from mnist_accel.data.digit_image.search import find_digits

    digits, seen = find_digits(load_picture(path))
    if not digits:
        found = f"only {' and '.join(seen)} on" if seen else "nothing differs enough from"
        raise DataError(
            f"{source_name(path)} shows no digit: {found} the background; use a picture of one "
            "digit with more contrast and a margin of plain paper"
        )
    return digits


def read_plain_image(
    path: Source, *, size: tuple[int, int] = (IMAGE_SIZE, IMAGE_SIZE)
) -> NDArray[np.float32]:
    """Return an image file as float32 with height and width `size`, 0 for background.

    The picture is scaled as a whole. The background is the median of the pixels at the border. A
    picture of other proportions is padded with it.

    Raises:
        DataError: the file is missing, damaged, not an image, or too large.
    """
    from mnist_accel.data.digit_image.loading import load_picture, resize

    gray = load_picture(path).mean(axis=2)
    border = np.median(np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]]))
    if border > 0.5:  # Fashion-MNIST shows light things on black
        gray, border = 1 - gray, 1 - border
    scale = max(gray.shape[0] / size[0], gray.shape[1] / size[1])
    missing = [round(scale * side) - found for side, found in zip(size, gray.shape, strict=True)]
    margins = [(m // 2, m - m // 2) for m in missing]
    padded = np.pad(gray, margins, constant_values=border)
    return resize(padded[..., None], size)[..., 0]


def resized(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return an image (H, W) with height and width `size`."""
    from mnist_accel.data.digit_image.loading import resize

    return image if image.shape == size else resize(image[..., None], size)[..., 0]
