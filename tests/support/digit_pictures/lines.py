"""Disturbances by lines: borders, frames, axes, rulings.

Each function changes a scene; the strength is 1 (mild), 2 or 3 (strong).
"""

import itertools

import numpy as np
from PIL import ImageDraw, ImageFont

from tests.support.digit_pictures.scene import Array, Scene, blend, corners, draw


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
    scene.extend(((margin, margin), (margin, margin)))
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


def thick_frame(scene: Scene, strength: int) -> None:
    """Draw the thick frame of a picture or a slide along all four borders."""
    width = round(min(scene.size) * (0.05, 0.1, 0.16)[strength - 1])
    level = scene.rng.uniform(0, 0.6)
    scene.extend(((width, width), (width, width)))
    for side in range(4):
        np.rot90(scene.cover, side)[:width] = level


def dashed_box(scene: Scene, strength: int) -> None:
    """Draw the dashed or dotted box of a form around the digit."""
    top, left, side = scene.box
    gap = side * (0.1, 0.05, 0.02)[strength - 1]
    dash = side * scene.rng.uniform(0.02, 0.08)
    width = max(2, round(side * 0.008 * strength))
    ends = corners((left - gap, top - gap, left + side + gap, top + side + gap), 0, 1)

    def paint(pen: ImageDraw.ImageDraw, k: int) -> None:
        for start, end in itertools.pairwise(ends):
            step = (np.array(end) - start) / (side + 2 * gap)
            for place in np.arange(0, side + 2 * gap - dash, 2 * dash):
                points = np.concatenate([start + place * step, start + (place + dash) * step])
                pen.line([k * value for value in points], fill=255, width=k * width)

    blend(scene, draw(scene, paint), scene.rng.uniform(0, 0.4))


def writing_line(scene: Scene, strength: int) -> None:
    """Draw one line, on which the digit stands; with more strength the digit crosses it."""
    top, _, side = scene.box
    inked = np.flatnonzero(scene.ink.any(axis=1))
    bottom = inked[-1] if inked.size else top + side
    y = bottom + side * (0.06, 0.0, -0.1)[strength - 1]
    width = max(1, round(side * 0.006 * strength))
    line = draw(scene, lambda d, k: d.line((0, k * y, k * scene.size[0], k * y), 255, k * width))
    blend(scene, line, scene.rng.uniform(0.2, 0.6))


def colored_grid(scene: Scene, strength: int) -> None:
    """Print blue, green or red squares on the paper."""
    side = scene.box[2]
    width = max(1, side * 0.004 * strength)
    distance = side * scene.rng.uniform(0.12, 0.5)
    angle = scene.rng.uniform(-1, 1) * (0.3, 2, 5)[strength - 1]
    lines = np.maximum(
        _rulings(scene, distance, angle, width), _rulings(scene, distance, angle + 90, width)
    )
    color = np.array([(0.3, 0.5, 0.9), (0.4, 0.75, 0.5), (0.9, 0.4, 0.4)])[scene.rng.integers(3)]
    color = 1 - (1 - color) * (0.5, 0.75, 1)[strength - 1]
    scene.paper_color = 1 - lines[..., None] * (1 - color)
