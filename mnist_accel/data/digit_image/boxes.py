"""Boxes of pixels: a slice of rows and a slice of columns."""

from collections.abc import Iterable

Box = tuple[slice, slice]


def sides(box: Box) -> tuple[int, int]:
    """Return height and width of a box."""
    return box[0].stop - box[0].start, box[1].stop - box[1].start


def size(box: Box) -> int:
    """Return the longer side of a box."""
    return max(sides(box))


def area(box: Box) -> int:
    """Return the number of pixels in a box."""
    return sides(box)[0] * sides(box)[1]


def contains(outer: Box, inner: Box) -> bool:
    """Return whether a box contains another one."""
    return all(o.start <= i.start and i.stop <= o.stop for o, i in zip(outer, inner, strict=True))


def is_mostly_inside(inner: Box, outer: Box) -> bool:
    """Return whether more than 60 % of a box is inside another one."""
    common = [max(0, -gap) for gap in gaps(inner, outer)]
    return common[0] * common[1] > 0.6 * area(inner)


def gaps(one: Box, other: Box) -> tuple[int, int]:
    """Return the distances of two boxes vertically and horizontally; negative if they overlap."""
    rows, columns = (
        max(a.start, b.start) - min(a.stop, b.stop) for a, b in zip(one, other, strict=True)
    )
    return rows, columns


def union(boxes: Iterable[Box]) -> Box:
    """Return the smallest box that contains all of `boxes`."""
    rows, columns = zip(*boxes, strict=True)
    return (
        slice(min(s.start for s in rows), max(s.stop for s in rows)),
        slice(min(s.start for s in columns), max(s.stop for s in columns)),
    )


def grown(box: Box, margin: int) -> Box:
    """Return a box with `margin` more pixels on each side, cut off at row and column 0."""
    rows, columns = (slice(max(0, s.start - margin), max(0, s.stop + margin)) for s in box)
    return rows, columns
