"""Draws shapes that are no digit: scribbles, letters, symbols, touching digits and areas.

Each function returns the ink of one shape, float32 (SIZE, SIZE) in 0…1.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from scipy.interpolate import make_interp_spline

SIZE = 112
# Letters and signs that no usual handwriting of a digit resembles.
LETTERS = "ACEFGHKLMNPQRTVWXYadefhkmnprtuvwxyäßΔΣΩπλ&@#%?!*+=<>$€{}[]()"
Ink = NDArray[np.float32]


def _lines(points: NDArray[np.float64], width: float, *more: NDArray[np.float64]) -> Ink:
    """Return lines through points in 0…1, with round ends."""
    canvas = Image.new("L", (2 * SIZE, 2 * SIZE))
    pen, size = ImageDraw.Draw(canvas), 2 * SIZE
    radius = max(1.0, width * size / 2)
    for part in (points, *more):
        scaled = [(float(x), float(y)) for x, y in part * size]
        pen.line(scaled, fill=255, width=round(2 * radius), joint="curve")
        for x, y in (scaled[0], scaled[-1]):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return _reduced(canvas)


def _reduced(canvas: Image.Image) -> Ink:
    return np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.float32) / 255


def slanted(canvas: Image.Image, slope: float) -> Image.Image:
    """Return a square image with its rows shifted, the more the farther from the middle."""
    matrix = (1, slope, -slope * canvas.height / 2, 0, 1, 0)
    return canvas.transform(canvas.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _pen(rng: np.random.Generator) -> float:
    return float(rng.uniform(0.02, 0.12))


def scribble(rng: np.random.Generator) -> Ink:
    """Draw a smooth curve through random points."""
    count = int(rng.integers(5, 12))
    points = rng.uniform(0.1, 0.9, (count, 2))
    curve = make_interp_spline(np.linspace(0, 1, count), points, k=3)(np.linspace(0, 1, 150))
    return _lines(np.clip(curve, 0.03, 0.97), _pen(rng))


def zigzag(rng: np.random.Generator) -> Ink:
    """Draw a line up and down, or through random points."""
    count = int(rng.integers(5, 11))
    if rng.random() < 0.4:
        return _lines(rng.uniform(0.1, 0.9, (count, 2)), _pen(rng))
    x = np.linspace(0.1, 0.9, count) + rng.normal(0, 0.02, count)
    low, high = rng.uniform(0.1, 0.35), rng.uniform(0.55, 0.9)
    y = np.where(np.arange(count) % 2, low, high) + rng.normal(0, 0.05, count)
    points = np.stack([x, y], axis=1)
    return _lines(points[:, ::-1] if rng.random() < 0.3 else points, _pen(rng))


def wave(rng: np.random.Generator) -> Ink:
    """Draw a wave, a spiral, or the graph of a random walk."""
    t, kind = np.linspace(0, 1, 200), rng.integers(3)
    if kind == 0:
        turns = rng.uniform(2, 7)
        x = 0.1 + 0.8 * t + rng.uniform(0, 0.06) * np.cos(2 * np.pi * turns * t)
        y = 0.5 + rng.uniform(0.08, 0.35) * np.sin(2 * np.pi * turns * t + rng.uniform(0, 6))
    elif kind == 1:
        angle = 2 * np.pi * rng.uniform(1.6, 4) * t + rng.uniform(0, 6)
        radius = 0.04 + rng.uniform(0.3, 0.4) * t
        x, y = 0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)
    else:
        count = int(rng.integers(8, 60))
        x, y = np.linspace(0.05, 0.95, count), np.cumsum(rng.normal(size=count))
        y = 0.1 + rng.uniform(0.3, 0.8) * (y - y.min()) / np.ptp(y)
    return _lines(np.stack([x, y], axis=1), rng.uniform(0.015, 0.07))


def letters(rng: np.random.Generator, fonts: Sequence[str]) -> Ink:
    """Draw a letter, a sign or a short word."""
    count = 1 if rng.random() < 0.75 else int(rng.integers(2, 6))
    text = "".join(rng.choice(list(LETTERS), count))
    size = SIZE * rng.uniform(0.6, 0.8) / (1 + 0.5 * (count - 1))
    font = ImageFont.truetype(str(rng.choice(list(fonts))), size)
    canvas = Image.new("L", (SIZE, SIZE))
    pen = ImageDraw.Draw(canvas)
    pen.text((SIZE / 2, SIZE / 2), text, 255, font, "mm", stroke_width=int(rng.integers(0, 4)))
    canvas = slanted(canvas, rng.uniform(-0.3, 0.3)).rotate(
        rng.uniform(-12, 12), Image.Resampling.BILINEAR
    )
    return np.asarray(canvas, dtype=np.float32) / 255


def symbol(rng: np.random.Generator) -> Ink:
    """Draw a polygon, star, cross, arrow, check mark, face, house or divided circle."""
    kind, width, turn = rng.integers(8), _pen(rng), rng.uniform(0, 2 * np.pi)

    def polygon(corners: int, step: int = 1, angle: float = turn) -> NDArray[np.float64]:
        angles = angle + 2 * np.pi * step * np.arange(corners + 1) / corners
        return 0.5 + 0.4 * np.stack([np.sin(angles), np.cos(angles)], axis=1)

    if kind == 0:
        stretch = np.array([1, rng.uniform(0.6, 1)])
        return _lines(0.5 + (polygon(int(rng.integers(3, 5))) - 0.5) * stretch, width)
    if kind == 1:
        return _lines(polygon(5, 2), width)
    if kind == 2:
        ends, middle = polygon(4, 1, turn if rng.random() < 0.5 else 0.0), rng.uniform(-0.1, 0.1, 2)
        return _lines(ends[[0, 2]] + middle, width, ends[[1, 3]])
    if kind == 3:
        ends = polygon(int(rng.integers(4, 9)))
        return _lines(ends[[0, 3]], width, *(np.stack([ends[0], end]) for end in ends[1:3]))
    if kind == 4:
        tip = np.array([rng.uniform(0.25, 0.45), rng.uniform(0.75, 0.9)])
        start = np.array([rng.uniform(0.05, 0.2), rng.uniform(0.45, 0.7)])
        return _lines(np.stack([start, tip, [rng.uniform(0.75, 0.95), 0.1]]), width)
    circle = polygon(40)
    if kind == 5:
        arc = 0.5 + 0.5 * (polygon(40, 1, -np.pi / 3)[:14] - 0.5)
        eyes = [np.array([[x, 0.4], [x, 0.42]]) for x in (0.37, 0.63)]
        return _lines(circle, 0.6 * width, arc, *eyes)
    if kind == 6:
        house = [[0.2, 0.9], [0.2, 0.45], [0.5, 0.1], [0.8, 0.45], [0.8, 0.9], [0.2, 0.9]]
        return _lines(np.array(house), width, np.array([[0.2, 0.45], [0.8, 0.45]]))
    return _lines(circle, width, polygon(2), polygon(2, 1, turn + rng.uniform(0.8, 1.6)))


def area(rng: np.random.Generator) -> Ink:
    """Fill polygons or ellipses, or the spots of a smooth random pattern."""
    if rng.random() < 0.25:
        pattern = ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), rng.uniform(5, 12))
        return (pattern > np.quantile(pattern, rng.uniform(0.5, 0.85))).astype(np.float32)
    canvas = Image.new("L", (SIZE, SIZE))
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        if rng.random() < 0.6:
            corners = SIZE * rng.uniform(0.05, 0.95, (int(rng.integers(3, 8)), 2))
            pen.polygon([tuple(corner) for corner in corners], fill=255)
        else:
            x, y, a, b = rng.uniform((0, 0, 0.3, 0.3), (0.5, 0.5, 0.9, 0.9))
            pen.ellipse([SIZE * v for v in (x, y, x + a, y + b)], fill=255)
    return np.asarray(canvas, dtype=np.float32) / 255


def sheet(digit: Ink, rng: np.random.Generator) -> Ink:
    """Return a tilted sheet as if its paper were ink, on which a digit (H, W) is missing."""
    height, width = SIZE * rng.uniform(0.5, 0.8), SIZE * rng.uniform(0.25, 0.8)
    canvas = Image.new("L", (SIZE, SIZE))
    left, top = (SIZE - width) / 2, (SIZE - height) / 2
    ImageDraw.Draw(canvas).rectangle((left, top, SIZE - left, SIZE - top), fill=255)
    side = int(min(height, width) * rng.uniform(0.3, 0.8))
    x, y = rng.uniform((left, top), (SIZE - left - side, SIZE - top - side)).astype(int)
    hole = Image.fromarray((255 * digit).astype(np.uint8)).resize((side, side))
    canvas.paste(0, (int(x), int(y)), hole)
    turned = canvas.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR)
    return np.asarray(turned, dtype=np.float32) / 255


def touching(one: Ink, other: Ink, rng: np.random.Generator) -> Ink:
    """Return two digits (H, W) side by side that touch or almost touch."""
    first, second = (ink[:, ink.max(axis=0) > 0.5] for ink in (one, other))
    overlap = int(rng.integers(-4, 1 + max(2, min(first.shape[1], second.shape[1]) // 4)))
    width = first.shape[1] + second.shape[1] - overlap
    pair = np.zeros((one.shape[0], width), dtype=np.float32)
    pair[:, : first.shape[1]] = first
    pair[:, width - second.shape[1] :] = np.maximum(pair[:, width - second.shape[1] :], second)
    return pair


SHAPES: tuple[Callable[[np.random.Generator], Ink], ...] = (scribble, zigzag, wave, symbol, area)
