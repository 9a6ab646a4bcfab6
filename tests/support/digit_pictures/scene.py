"""Pictures of handwritten digits in layers: paper, prints, ink, cover, light and camera.

All random numbers come from the seed, so pictures are reproducible.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]
STRENGTHS = (1, 2, 3)
LAYERS = ("ink", "paper", "light", "cover")


@dataclass
class Scene:
    """A picture in layers, each (H, W) with values in 0…1.

    Attributes:
        ink: coverage by the pen of the digit.
        paper: brightness of everything below the ink.
        pen: brightness of the pen.
        light: factor of the illumination.
        cover: brightness of what lies above paper and ink; NaN where nothing does.
        noise: standard deviation of the noise of the camera.
        paper_color: factor of each color channel of the paper, (3,) or (H, W, 3).
        pen_color: fraction of the ink in each color channel, (3,).
        effects: functions that change the finished picture (H, W, 3).
        inverted: whether the picture is a negative.
        box: top, left and side of the square of the digit.
        rng: source of random numbers.
    """

    ink: Array
    paper: Array
    pen: float
    noise: float
    box: tuple[int, int, int]
    rng: np.random.Generator
    light: Array = field(init=False)
    cover: Array = field(init=False)
    paper_color: Array = field(default_factory=lambda: np.ones(3))
    pen_color: Array = field(default_factory=lambda: np.ones(3))
    effects: list[Callable[[Pixels], Pixels]] = field(default_factory=list)
    inverted: bool = False

    def __post_init__(self) -> None:
        self.light = np.ones_like(self.paper)
        self.cover = np.full_like(self.paper, np.nan)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.paper.shape[1], self.paper.shape[0]

    def extend(self, widths: tuple[tuple[int, int], tuple[int, int]]) -> Array:
        """Extend the paper; return where it was before, (H, W) in 0…1.

        Args:
            widths: pixels at the top and bottom, and at the left and right.
        """
        before = np.pad(np.ones_like(self.paper), widths)
        for name in LAYERS:
            setattr(self, name, np.pad(getattr(self, name), widths, mode="edge"))
        self.ink = self.ink * before
        top, left, side = self.box
        self.box = (top + widths[0][0], left + widths[1][0], side)
        return before

    def render(self) -> Pixels:
        """Return the picture as uint8, (H, W) if it is gray, or else (H, W, 3)."""
        paper = self.paper[..., None] * self.paper_color
        pen = 1 - (1 - self.pen) * self.pen_color
        ink = self.ink[..., None]
        value = paper * (1 - ink) + pen * ink
        cover = self.cover[..., None]
        value = np.where(np.isnan(cover), value, cover) * self.light[..., None]
        value = value + self.noise * self.rng.normal(size=self.paper.shape)[..., None]
        if self.inverted:
            value = 1 - value
        pixels = np.rint(255 * np.clip(value, 0, 1)).astype(np.uint8)
        for effect in self.effects:
            pixels = effect(pixels)
        return pixels[..., 0] if (pixels == pixels[..., :1]).all() else pixels


def draw_digit(image: Pixels, side: int, *, sharp: bool) -> Array:
    """Return the coverage (side, side) of an MNIST image, with crisp or blurred edges."""
    enlarged = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    ink = np.asarray(enlarged, dtype=np.float64) / 255
    if sharp:
        ink = np.clip((ndimage.gaussian_filter(ink, side / 80) - 0.42) * side / 25, 0, 1)
    return ink


def make_scene(
    image: Pixels | None, seed: int | Sequence[int], *, fill: tuple[float, float] = (0.5, 0.85)
) -> Scene:
    """Return a scene with one digit, or none.

    Args:
        image: an MNIST image (28, 28), or None for empty paper.
        seed: seed of all random numbers.
        fill: range of the side of the digit as a fraction of the shorter side of the picture.
    """
    rng = np.random.default_rng(seed)
    height, width = (int(rng.integers(240, 520)) for _ in range(2))
    side = int(rng.uniform(*fill) * min(height, width))
    top, left = (int(rng.integers(0, total - side + 1)) for total in (height, width))
    ink = np.zeros((height, width))
    sharp = bool(rng.random() < 0.6)
    if image is not None:
        ink[top : top + side, left : left + side] = draw_digit(image, side, sharp=sharp)
    paper = np.full((height, width), rng.uniform(0.85, 1))
    return Scene(ink, paper, rng.uniform(0.02, 0.25), rng.uniform(0, 0.012), (top, left, side), rng)


def draw(scene: Scene, paint: Callable[[ImageDraw.ImageDraw, int], None]) -> Array:
    """Return what `paint` draws, as coverage (H, W) with smooth edges.

    Args:
        scene: gives the size.
        paint: draws with fill 255 at `scale` times the coordinates of the scene.
    """
    scale = 2
    canvas = Image.new("L", (scale * scene.size[0], scale * scene.size[1]), 0)
    paint(ImageDraw.Draw(canvas), scale)
    return np.asarray(canvas.resize(scene.size, Image.Resampling.BOX), dtype=np.float64) / 255


def blend(scene: Scene, coverage: Array, level: float) -> None:
    """Print something of brightness `level` on the paper, below the ink of the digit."""
    scene.paper = scene.paper * (1 - coverage) + level * coverage


def corners(
    box: tuple[float, float, float, float], angle: float, scale: int
) -> list[tuple[float, float]]:
    """Return the corners of a rectangle (left, top, right, bottom), rotated by an angle in degrees.

    The first corner is repeated at the end.
    """
    left, top, right, bottom = box
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    turn = np.radians(angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return [tuple(scale * (middle + matrix @ (np.array(p) - middle))) for p in points]


def as_jpeg(pixels: Pixels, quality: int) -> Pixels:
    """Return a picture (H, W, 3) as JPEG of this quality shows it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))
