"""Disturbances around and below the digit: light, desk, texture, and things in the picture.

Each function changes a scene; the strength is 1 (mild), 2 or 3 (strong).
"""

import numpy as np
from PIL import ImageDraw, ImageFont
from scipy import ndimage

from tests.support.digit_pictures.scene import Array, Scene, blend, draw


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
    sheet = scene.extend(((by[0], by[1]), (by[2], by[3])))
    angle = scene.rng.uniform(-1, 1) * (0, 4, 10)[strength - 1]
    scene.ink = ndimage.rotate(scene.ink, angle, reshape=False, order=1)
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
    sheet = scene.extend(((pad[0], pad[2]), (pad[1], pad[3])))
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


def page_corner(scene: Scene, strength: int) -> None:
    """Show a corner of the page with the desk on two sides, rotated."""
    turn = np.radians(scene.rng.uniform(5, 40))
    by = round(min(scene.size) * (0.15, 0.3, 0.45)[strength - 1])
    scene.extend(((by, 0), (by, 0)))
    height, width = scene.paper.shape
    y, x = np.mgrid[:height, :width]
    # The corner of the page moves away from the digit, so that the desk never covers the digit.
    top, left, _ = scene.box
    along = (x - left) * np.cos(turn) + (y - top) * np.sin(turn)
    across = (y - top) * np.cos(turn) - (x - left) * np.sin(turn)
    sheet = (along > -0.05 * by) & (across > -scene.box[2] * np.sin(turn) - 0.05 * by)
    scene.cover = np.where(sheet, np.nan, _desk(scene, strength))


def sharp_shadow(scene: Scene, strength: int) -> None:
    """Cast the shadow of a window frame: bands with sharp edges."""
    rng, (width, height) = scene.rng, scene.size
    turn = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width]
    across = (x - width / 2) * np.cos(turn) + (y - height / 2) * np.sin(turn)
    start, wide = rng.uniform(-0.6, 0.4) * min(scene.size), rng.uniform(0.2, 0.8) * min(scene.size)
    shadow = ((across > start) & (across < start + wide)).astype(float)
    shadow = ndimage.gaussian_filter(shadow, 1)
    scene.light *= 1 - (0.15, 0.3, 0.45)[strength - 1] * shadow


def glare(scene: Scene, strength: int) -> None:
    """Reflect a lamp: a bright spot in which the ink fades."""
    (width, height), rng = scene.size, scene.rng
    y, x = np.mgrid[:height, :width]
    middle = rng.uniform(0.2, 0.8, 2) * (height, width)
    distance = np.hypot(y - middle[0], x - middle[1]) / (0.3 * min(scene.size))
    scene.paper = scene.paper * 0.75
    scene.light *= 1 + (0.1, 0.2, 0.35)[strength - 1] * np.exp(-(distance**2))


def punched_holes(scene: Scene, strength: int) -> None:
    """Show the holes of a spiral notebook along one side."""
    side = int(scene.rng.integers(4))
    small = min(scene.size)
    radius = small * (0.012, 0.02, 0.03)[strength - 1]
    margin = round(5 * radius)
    widths = [[0, 0], [0, 0]]
    widths[side // 2][side % 2] = margin
    scene.extend(((widths[0][0], widths[0][1]), (widths[1][0], widths[1][1])))
    height, width = scene.paper.shape
    y, x = np.mgrid[:height, :width]
    along, across = (x, y) if side < 2 else (y, x)
    if side % 2:
        across = (height if side < 2 else width) - 1 - across
    period = 4 * radius * scene.rng.uniform(0.8, 1.5)
    holes = np.hypot(along % period - period / 2, across - 2.2 * radius) < radius
    scene.cover = np.where(holes, scene.rng.uniform(0, 0.4), scene.cover)


def rounded_corners(scene: Scene, strength: int) -> None:
    """Cut the corners, as of a card or a window of an app; outside it is black."""
    height, width = scene.paper.shape
    radius = min(height, width) * (0.05, 0.1, 0.2)[strength - 1]
    y, x = np.mgrid[:height, :width] + 0.5
    dy = np.maximum(0, radius - np.minimum(y, height - y))
    dx = np.maximum(0, radius - np.minimum(x, width - x))
    scene.cover = np.where(np.hypot(dy, dx) > radius, 0.0, scene.cover)
    scene.ink = np.where(np.isnan(scene.cover), scene.ink, 0)


def screenshot(scene: Scene, strength: int) -> None:
    """Add the status bar of a phone; with more strength also a title, and buttons at the bottom."""
    size = min(scene.size)
    bar = round(0.1 * size)
    scene.extend(((bar * (1 if strength == 1 else 3), bar * (0 if strength < 3 else 2)), (0, 0)))
    width, height = scene.size
    font, large = ImageFont.load_default(size=bar), ImageFont.load_default(size=2 * bar)

    def paint(pen: ImageDraw.ImageDraw, k: int) -> None:
        pen.text((k * bar * 0.5, k * bar * 0.5), "12:47", fill=255, font=font, anchor="lm")
        pen.rectangle(
            [k * v for v in (width - 1.3 * bar, 0.3 * bar, width - 0.4 * bar, 0.7 * bar)], fill=255
        )
        for bars in range(4):
            x = width - (2.6 - 0.25 * bars) * bar
            y = (0.6 - 0.1 * bars) * bar
            pen.rectangle([k * v for v in (x, y, x + 0.15 * bar, 0.7 * bar)], fill=255)
        if strength > 1:
            pen.text((k * width / 2, k * bar * 2), "Drawing", fill=255, font=large, anchor="mm")
        if strength > 2:
            y, r = height - bar, 0.4 * bar
            pen.ellipse([k * v for v in (width / 2 - r, y - r, width / 2 + r, y + r)], outline=255)
            x = width / 5
            pen.rectangle([k * v for v in (x - r, y - r, x + r, y + r)], outline=255, width=2 * k)

    blend(scene, draw(scene, paint), 0.2)


def finger(scene: Scene, strength: int) -> None:
    """Show a finger at a border of the photo, at the side with the most space."""
    height, width = scene.paper.shape
    rng = scene.rng
    top, left, side = scene.box
    room = (top, left, height - top - side, width - left - side)
    place = int(np.argmax(room))
    depth = min(room[place] - 3, round(0.25 * min(scene.size)))
    if depth < 8:
        depth = 8 + round(0.1 * strength * min(scene.size))
        widths = [[0, 0], [0, 0]]
        widths[place % 2][place // 2] = depth
        scene.extend(((widths[0][0], widths[0][1]), (widths[1][0], widths[1][1])))
        height, width = scene.paper.shape
    half = depth * rng.uniform(0.3, 0.6)
    y, x = np.mgrid[:height, :width]
    inward = (y, x, height - 1 - y, width - 1 - x)[place]
    along, length = ((x, width), (y, height))[place % 2]
    middle = rng.uniform(0.2, 0.8) * length
    tip = np.maximum(0, inward - (depth - half))
    inside = np.hypot(along - middle, tip) < half
    shade = 0.6 - 0.1 * strength + 0.1 * np.cos((along - middle) / half)
    scene.cover = np.where(inside, shade, scene.cover)


def bleed_through(scene: Scene, strength: int) -> None:
    """Show the writing on the other side of the paper, faint and mirrored."""
    height = scene.size[1]
    font = ImageFont.load_default(size=0.3 * min(scene.size))
    words = draw(
        scene,
        lambda d, k: [
            d.text((k * x, k * y), text, fill=255, font=font)
            for text, x, y in (("amet 5", 0, 0), ("lorem", 9, height / 2))
        ],
    )
    back = ndimage.gaussian_filter(words[:, ::-1], 2)
    scene.paper = scene.paper * (1 - (0.03, 0.06, 0.1)[strength - 1] * back)


def chalkboard(scene: Scene, strength: int) -> None:
    """Write with chalk on a board with smears of the sponge."""
    rng = scene.rng
    smears = ndimage.gaussian_filter(rng.normal(size=scene.paper.shape), (12, 40))
    smears = np.clip(smears / np.abs(smears).max(), 0, 1)
    grain = ndimage.gaussian_filter(rng.normal(size=scene.paper.shape), 0.7)
    scene.inverted = True
    scene.paper = scene.paper * 0.9 - (0.08, 0.15, 0.25)[strength - 1] * smears
    scene.ink = np.clip(scene.ink * (0.9 + 0.1 * strength * grain), 0, 1)


def fold(scene: Scene, strength: int) -> None:
    """Fold the paper: a crease across the picture, with one side darker."""
    rng, (width, height) = scene.rng, scene.size
    turn = rng.choice([0, 90]) + rng.uniform(-8, 8)
    y, x = np.mgrid[:height, :width]
    across = (x - width / 2) * np.cos(np.radians(turn)) + (y - height / 2) * np.sin(
        np.radians(turn)
    )
    across = across - rng.uniform(-0.3, 0.3) * min(scene.size)
    crease = np.exp(-((across / 1.5) ** 2))
    darker = np.exp(-np.maximum(0, across) / (0.4 * min(scene.size))) * (across > 0)
    amount = (0.05, 0.1, 0.18)[strength - 1]
    scene.light *= 1 - amount * darker - amount * crease


def screen_photo(scene: Scene, strength: int) -> None:
    """Photograph a screen: its pixels show as a fine grid, with moiré bands."""
    y, x = np.mgrid[: scene.paper.shape[0], : scene.paper.shape[1]]
    period = scene.rng.uniform(2.2, 3.6)
    grid = np.sin(2 * np.pi * x / period) * np.sin(2 * np.pi * y / period)
    bands = np.sin(2 * np.pi * (x + 0.4 * y) / scene.rng.uniform(20, 60))
    scene.light *= 1 - (0.02, 0.05, 0.1)[strength - 1] * (1 + 0.5 * grid + 0.5 * bands)


def neighbors(scene: Scene, strength: int) -> None:
    """Show parts of the writing next to the digit, cut by the left and right border."""
    _, left, side = scene.box
    rng, (width, height) = scene.rng, scene.size
    visible = side * (0.05, 0.1, 0.18)[strength - 1]

    def paint(pen: ImageDraw.ImageDraw, k: int) -> None:
        for middle in (visible - 0.3 * side, width - visible + 0.3 * side):
            y = rng.uniform(0.3, 0.7) * height
            box = (middle - 0.3 * side, y - 0.35 * side, middle + 0.3 * side, y + 0.35 * side)
            pen.ellipse([k * v for v in box], outline=255, width=round(k * 0.06 * side))

    widths = max(0, round(1.6 * visible - left)), max(0, round(1.6 * visible + left + side - width))
    scene.extend(((0, 0), widths))
    width = scene.size[0]
    blend(scene, draw(scene, paint), scene.pen)


def noisy(scene: Scene, strength: int) -> None:
    """Photograph in the dark."""
    scene.noise = 0.02 * strength
