"""Pictures of handwritten digits with disturbances in graded strength, made from MNIST images.

A scene is a sheet of paper with a digit. Each disturbance changes the scene; its strength is 1
(mild), 2 or 3 (strong). All random numbers come from the seed, so pictures are reproducible.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage

Array = NDArray[np.float64]
STRENGTHS = (1, 2, 3)


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
    inverted: bool = False

    def __post_init__(self) -> None:
        self.light = np.ones_like(self.paper)
        self.cover = np.full_like(self.paper, np.nan)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.paper.shape[1], self.paper.shape[0]

    def render(self) -> NDArray[np.uint8]:
        """Return the picture as uint8 (H, W)."""
        value = self.paper * (1 - self.ink) + self.pen * self.ink
        value = np.where(np.isnan(self.cover), value, self.cover) * self.light
        value = value + self.noise * self.rng.normal(size=value.shape)
        if self.inverted:
            value = 1 - value
        return np.rint(255 * np.clip(value, 0, 1)).astype(np.uint8)


def draw_digit(image: NDArray[np.uint8], side: int, *, sharp: bool) -> Array:
    """Return the coverage (side, side) of an MNIST image, with crisp or blurred edges."""
    enlarged = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    ink = np.asarray(enlarged, dtype=np.float64) / 255
    if sharp:
        ink = np.clip((ndimage.gaussian_filter(ink, side / 80) - 0.42) * side / 25, 0, 1)
    return ink


def make_scene(
    image: NDArray[np.uint8] | None, seed: int, *, fill: tuple[float, float] = (0.5, 0.85)
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


def border_lines(scene: Scene, strength: int) -> None:
    """Draw thin lines along one to three borders, as in a screenshot or a careless crop."""
    width = max(1, round(strength * min(scene.size) * scene.rng.uniform(0.002, 0.008)))
    level = scene.rng.uniform(0, 0.5)
    for side in scene.rng.permutation(4)[: scene.rng.integers(1, 4)]:
        band = np.rot90(scene.cover, side)
        band[:width] = level


def frame_along_border(scene: Scene, strength: int) -> None:
    """Draw a frame along all four borders."""
    width = max(2, round(strength * min(scene.size) * scene.rng.uniform(0.007, 0.02)))
    level = scene.rng.uniform(0, 0.4)
    for side in range(4):
        np.rot90(scene.cover, side)[:width] = level


def printed_box(scene: Scene, strength: int) -> None:
    """Draw a box around the digit; with more strength it is thicker, nearer and more rotated."""
    top, left, side = scene.box
    gap = side * (0.1, 0.04, -0.02)[strength - 1]
    rng = scene.rng
    box = (
        max(6, left - gap * rng.uniform(1, 2)),
        max(6, top - gap * rng.uniform(1, 2)),
        min(scene.size[0] - 7, left + side + gap * rng.uniform(1, 2)),
        min(scene.size[1] - 7, top + side + gap * rng.uniform(1, 2)),
    )
    angle = rng.uniform(-1, 1) * (0, 1.5, 4)[strength - 1]
    width = max(2, round(side * 0.008 * strength))
    line = draw(scene, lambda d, k: d.line(corners(box, angle, k), fill=255, width=k * width))
    blend(scene, line, rng.uniform(0, 0.3))


def cell_of_table(scene: Scene, strength: int) -> None:
    """Draw the lines of a form or a Sudoku; they cross the whole picture."""
    top, left, side = scene.box
    gap = side * (0.06, 0.03, 0.0)[strength - 1]
    width = max(1, round(side * 0.007 * strength))

    def paint(pen: ImageDraw.ImageDraw, k: int) -> None:
        for x in (left - gap, left + side + gap):
            pen.line((k * x, 0, k * x, k * scene.size[1]), fill=255, width=k * width)
        for y in (top - gap, top + side + gap):
            pen.line((0, k * y, k * scene.size[0], k * y), fill=255, width=k * width)

    blend(scene, draw(scene, paint), scene.rng.uniform(0, 0.4))


def plot_axes(scene: Scene, strength: int) -> None:
    """Draw the axes of a plot, with ticks and numbers outside: four sides, two with strength 2."""
    height, width = scene.paper.shape
    margin = round(0.16 * min(height, width))
    pad = ((margin, margin), (margin, margin))
    for name in ("ink", "paper", "light", "cover"):
        setattr(scene, name, np.pad(getattr(scene, name), pad, mode="edge"))
    scene.ink = np.where(np.pad(np.ones((height, width)), margin) > 0, scene.ink, 0)
    thickness = (1, 2, 3)[strength - 1]
    left, top, right, bottom = margin, margin, margin + width, margin + height
    font = ImageFont.load_default(size=margin * 0.7)

    def paint(pen: ImageDraw.ImageDraw, k: int) -> None:
        line = {"fill": 255, "width": k * thickness}
        pen.line([(k * left, k * top), (k * left, k * bottom), (k * right, k * bottom)], **line)
        if strength != 2:
            pen.line([(k * left, k * top), (k * right, k * top), (k * right, k * bottom)], **line)
        for tick in range(0, 28, 5):
            x, y = left + width * (tick + 0.5) / 28, top + height * (tick + 0.5) / 28
            length = 0.1 * margin
            pen.line((k * x, k * bottom, k * x, k * (bottom + length)), **line)
            pen.line((k * (left - length), k * y, k * left, k * y), **line)
            if strength > 1 or tick % 10 == 0:
                below, beside = (k * x, k * (bottom + 2 * length)), (k * (left - 2 * length), k * y)
                pen.text(below, str(tick), fill=255, font=font, anchor="mt")
                pen.text(beside, str(tick), fill=255, font=font, anchor="rm")

    blend(scene, draw(scene, paint), 0.0)


def _rulings(scene: Scene, distance: float, angle: float, width: float) -> Array:
    """Return parallel lines over the whole picture."""
    reach = 2 * max(scene.size)
    offset = scene.rng.uniform(0, distance)

    def paint(pen: ImageDraw.ImageDraw, k: int) -> None:
        turn = np.radians(angle)
        along, across = (np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))
        for step in np.arange(-reach, reach, distance) + offset:
            x, y = across[0] * step, across[1] * step
            ends = (x - reach * along[0], y - reach * along[1])
            ends += (x + reach * along[0], y + reach * along[1])
            pen.line([k * value for value in ends], fill=255, width=max(1, round(k * width)))

    return draw(scene, paint)


def ruled_paper(scene: Scene, strength: int) -> None:
    """Draw rulings: darker, thicker and more rotated with more strength."""
    side = scene.box[2]
    angle = scene.rng.uniform(-1, 1) * (0.3, 2, 5)[strength - 1]
    width = max(1, side * 0.005 * strength)
    lines = _rulings(scene, side * scene.rng.uniform(0.35, 1.1), angle, width)
    blend(scene, lines, (0.75, 0.55, 0.35)[strength - 1] + scene.rng.uniform(-0.1, 0.1))


def squared_paper(scene: Scene, strength: int) -> None:
    """Draw squares: darker, thicker and more rotated with more strength."""
    side = scene.box[2]
    angle = scene.rng.uniform(-1, 1) * (0.3, 2, 5)[strength - 1]
    distance = side * scene.rng.uniform(0.2, 0.6)
    width = max(1, side * 0.005 * strength)
    lines = np.maximum(
        _rulings(scene, distance, angle, width), _rulings(scene, distance, angle + 90, width)
    )
    blend(scene, lines, (0.75, 0.55, 0.35)[strength - 1] + scene.rng.uniform(-0.1, 0.1))


def soft_shadow(scene: Scene, strength: int) -> None:
    """Cast the blurred shadow of a hand or a phone."""
    rng, (width, height) = scene.rng, scene.size
    turn = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width]
    across = (x - width / 2) * np.cos(turn) + (y - height / 2) * np.sin(turn)
    half = rng.uniform(0.08, 0.5) * min(scene.size)
    place = rng.uniform(-0.4, 0.4) * min(scene.size)
    shadow = (np.abs(across - place) < half).astype(float)
    shadow = ndimage.gaussian_filter(shadow, min(scene.size) * rng.uniform(0.02, 0.1))
    scene.light *= 1 - (0.2, 0.35, 0.5)[strength - 1] * shadow


def uneven_light(scene: Scene, strength: int) -> None:
    """Light the picture from one side, or darken its corners."""
    rng, (width, height) = scene.rng, scene.size
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    turn = rng.uniform(0, 2 * np.pi)
    slope = (x * np.cos(turn) + y * np.sin(turn)) / 2 + 0.5
    fall = (x**2 + y**2) / 2 if rng.random() < 0.5 else np.clip(slope, 0, 1)
    scene.light *= 1 - (0.25, 0.45, 0.65)[strength - 1] * fall


def _desk(scene: Scene, strength: int) -> Array:
    """Return a desk of plain color, or with the grain of wood."""
    rng = scene.rng
    level = {1: (0.5, 0.7), 2: (0.3, 0.5), 3: (0.05, 0.35)}[strength]
    grain = ndimage.gaussian_filter(rng.normal(size=scene.paper.shape), (1.5, 40))
    grain *= 0.02 * strength / grain.std()
    return rng.uniform(*level) + grain


def sheet_on_desk(scene: Scene, strength: int) -> None:
    """Show a sheet that does not fill the photo, tilted on a darker desk."""
    height, width = scene.paper.shape
    by = [round(scene.rng.uniform(0.05, 0.15 * strength) * min(height, width)) for _ in range(4)]
    pad = ((by[0], by[1]), (by[2], by[3]))
    sheet = np.pad(np.ones((height, width)), pad)
    angle = scene.rng.uniform(-1, 1) * (0, 4, 10)[strength - 1]
    for name in ("ink", "paper", "light", "cover"):
        layer = np.pad(getattr(scene, name), pad, mode="edge")
        if name == "ink":
            layer = layer * sheet
            layer = ndimage.rotate(layer, angle, reshape=False, order=1)
        setattr(scene, name, layer)
    sheet = ndimage.rotate(sheet, angle, reshape=False, order=1)
    scene.cover = np.where(sheet < 0.5, _desk(scene, strength), np.nan)
    if scene.rng.random() < 0.5:  # the sheet casts a shadow on the desk
        edge = ndimage.shift(sheet, (3, 3), mode="nearest") > 0.5
        scene.cover = np.where((sheet < 0.5) & edge, 0.6 * scene.cover, scene.cover)


def desk_beside(scene: Scene, strength: int) -> None:
    """Show the desk along one or two sides of the sheet."""
    height, width = scene.paper.shape
    pad = [0, 0, 0, 0]
    first = scene.rng.integers(4)
    for side in {first, (first + scene.rng.integers(2) * 2 + 1) % 4}:
        pad[side] = round(scene.rng.uniform(0.04, 0.2 * strength) * min(height, width))
    widths = ((pad[0], pad[2]), (pad[1], pad[3]))
    sheet = np.pad(np.ones((height, width)), widths)
    for name in ("ink", "paper", "light", "cover"):
        setattr(scene, name, np.pad(getattr(scene, name), widths, mode="edge"))
    scene.ink = scene.ink * sheet
    y, x = np.mgrid[: sheet.shape[0], : sheet.shape[1]]
    tilt = scene.rng.uniform(-1, 1) * (0, 0.02, 0.05)[strength - 1]
    lean = np.rint(tilt * (x - sheet.shape[1] / 2)).astype(int)
    sheet = sheet[np.clip(y + lean, 0, sheet.shape[0] - 1), x]
    scene.cover = np.where(sheet < 0.5, _desk(scene, strength), np.nan)


def texture(scene: Scene, strength: int) -> None:
    """Give the paper a texture: grain, the weave of cloth, stripes of wood, or dots."""
    rng, shape = scene.rng, scene.paper.shape
    kind = rng.integers(4)
    y, x = np.mgrid[: shape[0], : shape[1]]
    if kind == 0:
        pattern = ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0.7, 4))
    elif kind == 1:
        period = rng.uniform(4, 12)
        pattern = np.sin(2 * np.pi * x / period) * np.sin(2 * np.pi * y / period)
    elif kind == 2:
        pattern = ndimage.gaussian_filter(rng.normal(size=shape), (rng.uniform(1, 4), 60))
    else:
        period = rng.uniform(14, 30)
        pattern = (np.hypot(x % period - period / 2, y % period - period / 2) < period / 7) * 1.0
    pattern = pattern / np.abs(pattern).max()
    scene.paper = scene.paper - (0.06, 0.12, 0.2)[strength - 1] * (0.5 + 0.5 * pattern)


def specks(scene: Scene, strength: int) -> None:
    """Scatter dirt: dots and short hairs."""
    rng, (width, height) = scene.rng, scene.size

    def paint(pen: ImageDraw.ImageDraw, k: int) -> None:
        for _ in range(6 * strength):
            x, y = k * rng.uniform(0, width), k * rng.uniform(0, height)
            r = k * rng.uniform(0.3, 0.9) * strength
            pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
        for _ in range(strength - 1):
            x, y, turn = k * rng.uniform(0, width), k * rng.uniform(0, height), rng.uniform(0, 6.3)
            r = k * rng.uniform(5, 14)
            pen.line((x, y, x + r * np.cos(turn), y + r * np.sin(turn)), fill=255, width=k)

    blend(scene, draw(scene, paint), 0.2)


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


def noisy(scene: Scene, strength: int) -> None:
    """Photograph in the dark."""
    scene.noise = 0.02 * strength


def undisturbed(scene: Scene, strength: int) -> None:
    """Change nothing."""


CONTROLS = (undisturbed, thin, thick, inverted, faint, noisy, specks, uneven_light)
DISTURBANCES = (
    border_lines,
    frame_along_border,
    printed_box,
    cell_of_table,
    plot_axes,
    ruled_paper,
    squared_paper,
    soft_shadow,
    sheet_on_desk,
    desk_beside,
    texture,
)


def make_picture(
    image: NDArray[np.uint8] | None,
    disturbance: Callable[[Scene, int], None],
    strength: int,
    seed: int,
) -> NDArray[np.uint8]:
    """Return a picture of an MNIST image, or of none, with a disturbance, as uint8 (H, W)."""
    scene = make_scene(image, seed)
    if scene.rng.random() < 0.15 and disturbance not in (sheet_on_desk, desk_beside):
        scene.inverted = True
    disturbance(scene, strength)
    return scene.render()


def make_row(images: list[NDArray[np.uint8]], seed: int) -> NDArray[np.uint8]:
    """Return a picture of several digits beside each other, as uint8 (H, W)."""
    rng = np.random.default_rng(seed)
    side = int(rng.integers(100, 200))
    height, step = int(1.5 * side), int(side * rng.uniform(0.95, 1.2))
    ink = np.zeros((height, step * len(images) + side // 3))
    for place, image in enumerate(images):
        top, left = int(rng.integers(0, height - side)), side // 6 + place * step
        ink[top : top + side, left : left + side] += draw_digit(image, side, sharp=True)[
            :, : ink.shape[1] - left
        ]
    paper = np.full(ink.shape, rng.uniform(0.85, 1))
    return Scene(np.clip(ink, 0, 1), paper, 0.1, 0.01, (0, 0, side), rng).render()


def blurred(picture: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    """Return a picture (H, W) with a Gaussian blur."""
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))
