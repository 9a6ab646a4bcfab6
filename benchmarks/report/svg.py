"""Draws the elements of charts as SVG. The style sheet of the page sets their colors.

Three properties identify a contender: its color (CSS class `k0`, `k1`, …), the shape of its marks,
and its lines: solid with filled marks for a backend of this project, dashed with open marks for a
baseline.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

Point = tuple[float, float]

MARKS = 6
_MARK = 4.5
_APART = 2.2 * _MARK  # distance between the centers of adjacent marks
# Height of a line of text. It leaves room for the larger font of phones, where charts are narrow.
LINE = 19.0


@dataclass(frozen=True)
class Look:
    """How a contender is drawn."""

    name: str
    color: int
    mark: int
    is_baseline: bool

    @property
    def classes(self) -> str:
        """CSS classes."""
        return f"k{self.color} {'baseline' if self.is_baseline else 'own'}"


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis.

    Attributes:
        low: the value at `start`.
        high: the value at `end`.
        start: position of the start in the picture.
        end: position of the end in the picture.
        ticks: values with their labels.
        title: quantity and unit.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[tuple[float, str], ...]
    title: str

    def __call__(self, value: float) -> float:
        """Return the position of a value."""
        fraction = math.log(value / self.low) / math.log(self.high / self.low)
        return round(self.start + fraction * (self.end - self.start), 2)


def decades(low: float, high: float) -> list[float]:
    """Return up to five round values: powers of ten, also their multiples if few powers fit."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1,), (1, 3), (1, 2, 5)):
        ticks = [n * 10.0**power for power in range(first, last + 1) for n in factors]
        inside = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(inside) >= 3:
            break
    every = math.ceil(len(inside) / 5)  # five labels such as "100 ms" fit side by side
    return inside[::every]


def axis(
    values: Iterable[float],
    span: tuple[float, float],
    title: str,
    label: Callable[[float], str],
    *,
    ticks: Sequence[float] | None = None,
) -> Axis:
    """Return an axis that contains all values; by default with round ticks."""
    values = [*values, *(ticks or ())]
    margin = (max(values) / min(values)) ** 0.04 * 1.05
    low, high = min(values) / margin, max(values) * margin
    chosen = decades(low, high) if ticks is None else ticks
    return Axis(low, high, *span, tuple((tick, label(tick)) for tick in chosen), title)


def picture(width: int, height: int, description: str) -> Element:
    """Return an empty picture that is scaled to the width of its container."""
    return Element(
        "svg",
        {
            "viewBox": f"0 0 {width} {height}",
            "role": "img",
            "aria-label": description,
        },
    )


def markup(element: Element) -> str:
    """Return an element as text for an HTML page, which needs no namespace declaration."""
    return tostring(element, encoding="unicode")


def text(
    parent: Element, x: float, y: float, content: str, *, anchor: str = "start", kind: str = ""
) -> Element:
    """Add text at a position; y is its baseline."""
    attributes = {"x": f"{x:g}", "y": f"{y:g}", "text-anchor": anchor}
    element = SubElement(parent, "text", attributes | ({"class": kind} if kind else {}))
    element.text = content
    return element


def line(parent: Element, start: Point, end: Point, kind: str) -> None:
    """Draw a straight line."""
    ends = {"x1": start[0], "y1": start[1], "x2": end[0], "y2": end[1]}
    SubElement(parent, "line", {**{name: f"{v:g}" for name, v in ends.items()}, "class": kind})


def path(parent: Element, points: Sequence[Point], kind: str) -> None:
    """Draw a line through all points."""
    coordinates = " ".join(f"{x:g},{y:g}" for x, y in points)
    SubElement(parent, "polyline", {"points": coordinates, "class": kind})


def mark(parent: Element, x: float, y: float, look: Look, note: str = "") -> None:
    """Draw the mark of a contender; `note` is its tooltip."""
    shape = SubElement(
        parent, "path", {"d": _outline(look.mark, x, y), "class": f"mark {look.classes}"}
    )
    if note:
        SubElement(shape, "title").text = note


def _outline(shape: int, x: float, y: float) -> str:
    """Return one of six shapes of similar area as a path."""
    r = _MARK
    if shape % MARKS == 0:  # circle
        return f"M{x - r:g} {y:g}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z"
    corners = {
        1: [(-r, -r), (r, -r), (r, r), (-r, r)],  # square
        2: [(0, -1.3 * r), (1.2 * r, r), (-1.2 * r, r)],  # triangle
        3: [(0, -1.4 * r), (1.4 * r, 0), (0, 1.4 * r), (-1.4 * r, 0)],  # diamond
        4: [(0, 1.3 * r), (1.2 * r, -r), (-1.2 * r, -r)],  # triangle upside down
        5: [  # cross
            (-r, -r / 3), (-r / 3, -r / 3), (-r / 3, -r), (r / 3, -r), (r / 3, -r / 3), (r, -r / 3),
            (r, r / 3), (r / 3, r / 3), (r / 3, r), (-r / 3, r), (-r / 3, r / 3), (-r, r / 3),
        ],
    }[shape % MARKS]  # fmt: skip
    return "M" + "L".join(f"{x + dx:.2f} {y + dy:.2f}" for dx, dy in corners) + "z"


def draw_axes(parent: Element, x: Axis, y: Axis) -> None:
    """Draw frame, grid and labels of a chart; the y axis may start at the top or the bottom."""
    top, bottom = sorted((y.start, y.end))
    for value, label in y.ticks:
        line(parent, (x.start, y(value)), (x.end, y(value)), "grid")
        text(parent, x.start - 7, y(value) + 4, label, anchor="end", kind="tick")
    for value, label in x.ticks:
        line(parent, (x(value), bottom), (x(value), top), "grid")
        text(parent, x(value), bottom + 17, label, anchor="middle", kind="tick")
    line(parent, (x.start, bottom), (x.end, bottom), "frame")
    text(parent, (x.start + x.end) / 2, bottom + 40, x.title, anchor="middle", kind="title")
    text(parent, 2, top - 12, y.title, kind="title")


def apart(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions at least `gap` apart in `low`…`high`, close to the given positions."""
    order = sorted(range(len(positions)), key=positions.__getitem__)
    placed = [positions[index] for index in order]
    for index in range(1, len(placed)):
        placed[index] = max(placed[index], placed[index - 1] + gap)
    overshoot = max(0.0, placed[-1] - high) if placed else 0.0
    for index in reversed(range(len(placed))):
        limit = high if index == len(placed) - 1 else placed[index + 1] - gap
        placed[index] = min(placed[index], limit) if overshoot else placed[index]
        placed[index] = max(placed[index], low + gap * index)
    result = [0.0] * len(positions)
    for index, position in zip(order, placed, strict=True):
        result[index] = position
    return result


def side_by_side(points: Sequence[Point], low: float, high: float) -> list[Point]:
    """Return the points, moved sideways as little as necessary so that no two marks overlap."""
    placed: list[Point] = []
    for x, y in points:
        offsets = range(round((high - low) / _MARK))
        tried = (x + sign * offset * _MARK / 2 for offset in offsets for sign in (1, -1))
        free = (
            at
            for at in tried
            if low <= at <= high and all(math.dist((at, y), other) >= _APART for other in placed)
        )
        placed.append((next(free, x), y))
    return placed


def label_ends(parent: Element, ends: Sequence[tuple[Look, Point]], x: float, y: Axis) -> None:
    """Write names next to the ends of the lines of a chart; a thin line leads to a distant name."""
    heights = apart([point[1] for _, point in ends], LINE, y.end + 4, y.start - 2)
    for (look, point), height in zip(ends, heights, strict=True):
        if abs(height - point[1]) > 3 or x - point[0] > 12:
            path(parent, [(point[0] + 7, point[1]), (x - 4, height)], "thread")
        text(parent, x, height + 4, look.name, kind="name")
