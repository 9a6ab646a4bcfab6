"""Kinds of writing and files whose digit is read: no disturbance, but another pen, color or size.

Each function changes a scene; the strength is 1 (mild), 2 or 3 (strong).
"""

import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage

from tests.support.digit_pictures.scene import Pixels, Scene, as_jpeg


def undisturbed(scene: Scene, strength: int) -> None:
    """Change nothing."""


def _restroke(scene: Scene, growth: float) -> None:
    """Grow or shrink the strokes of the digit by a number of pixels on each side."""
    mask = scene.ink > 0.5
    distance = ndimage.distance_transform_edt(~mask) - ndimage.distance_transform_edt(mask)
    scene.ink = np.clip(growth + 0.5 - distance, 0, 1)


def thick(scene: Scene, strength: int) -> None:
    """Write with a thick pen."""
    _restroke(scene, 0.012 * strength * scene.box[2])


def thin(scene: Scene, strength: int) -> None:
    """Write with a thin pen: keep the middle line of the strokes, drawn with a small width."""
    mask = scene.ink > 0.5
    thinned = ndimage.distance_transform_edt(mask)
    ridge = mask & (thinned >= ndimage.maximum_filter(thinned, 3) - 0.5)
    grown = ndimage.distance_transform_edt(~ridge)
    scene.ink = np.clip((0.028, 0.018, 0.01)[strength - 1] * scene.box[2] + 0.5 - grown, 0, 1)


def inverted(scene: Scene, strength: int) -> None:
    """Show light ink on dark ground."""
    scene.inverted = True


def faint(scene: Scene, strength: int) -> None:
    """Write with a hard pencil."""
    scene.pen = float(scene.paper.mean()) - (0.5, 0.3, 0.15)[strength - 1]


def colored(scene: Scene, strength: int) -> None:
    """Write with a colored pen on colored paper; with more strength the paper is darker."""
    rng = scene.rng
    darkest = (0.85, 0.7, 0.5)[strength - 1]
    scene.paper_color = rng.uniform(darkest, 1, 3)
    scene.pen_color = rng.permutation([1.0, rng.uniform(0.5, 1), rng.uniform(0.2, 0.6)])


def compressed(scene: Scene, strength: int) -> None:
    """Save as JPEG of low quality."""
    quality = (40, 20, 8)[strength - 1]
    scene.effects.append(lambda pixels: as_jpeg(pixels, quality))


def blurred(scene: Scene, strength: int) -> None:
    """Photograph out of focus."""
    radius = scene.box[2] * (0.01, 0.02, 0.035)[strength - 1]
    scene.effects.append(
        lambda pixels: np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))
    )


def small_file(scene: Scene, strength: int) -> None:
    """Reduce the picture so that the digit has few pixels."""
    scale = (48, 34, 22)[strength - 1] / scene.box[2]

    def reduce(pixels: Pixels) -> Pixels:
        size = [max(8, round(scale * side)) for side in scene.size]
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))

    scene.effects.append(reduce)


def much_paper(scene: Scene, strength: int) -> None:
    """Photograph from afar: the digit is small on the paper."""
    by = round(scene.box[2] * (0.5, 1, 2)[strength - 1])
    scene.extend(((by, by), (by, by)))


def tight_crop(scene: Scene, strength: int) -> None:
    """Crop to the digit; with more strength the ink touches the border."""
    if not scene.ink.any():
        return
    margin = round(scene.box[2] * (0.06, 0.02, 0)[strength - 1])
    rows, columns = (np.flatnonzero(scene.ink.max(axis=axis) > 0.3) for axis in (1, 0))
    sides = []
    for found, length in ((rows, scene.size[1]), (columns, scene.size[0])):
        sides.append(slice(max(0, found[0] - margin), min(length, found[-1] + 1 + margin)))
    scene.effects.append(lambda pixels: pixels[sides[0], sides[1]])
