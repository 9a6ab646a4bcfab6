"""Groups the strokes of one digit, such as the two parts of a 5."""

from collections.abc import Sequence
from functools import cache
from itertools import combinations

from scipy import ndimage

from mnist_accel.data.digit_image.boxes import Box, gaps, sides, size, union
from mnist_accel.data.digit_image.marks import Mark

# Marks with a smaller distance, as a fraction of the size of the smaller mark, belong together,
# unless they stand side by side like two digits.
MAX_GAP = 0.3


def group_strokes(strokes: Sequence[Mark]) -> list[tuple[Mark, ...]]:
    """Return the strokes in groups that belong to the same digit."""
    groups: list[tuple[Mark, ...]] = [(mark,) for mark in sorted(strokes, key=lambda m: -m.size)]
    distance = cache(_distance)  # most pairs are compared again after each merge

    @cache
    def belong_together(one: tuple[Mark, ...], other: tuple[Mark, ...]) -> bool:
        gap = _max_gap(*(union(mark.box for mark in group) for group in (one, other)))
        return any(
            max(gaps(a.box, b.box)) <= gap and distance(a, b) <= gap for a in one for b in other
        )

    def find_pair() -> tuple[int, int] | None:
        pairs = combinations(range(len(groups)), 2)
        return next(((i, j) for i, j in pairs if belong_together(groups[i], groups[j])), None)

    while pair := find_pair():
        i, j = pair
        groups[i] += groups.pop(j)
    return groups


def _distance(one: Mark, other: Mark) -> float:
    """Return the distance of two marks in pixels."""
    both = union([one.box, other.box])
    return float(ndimage.distance_transform_edt(~one.within(both))[other.within(both)].min())


def _max_gap(a: Box, b: Box) -> float:
    """Return the maximum distance of strokes in two boxes that belong together; −1 for none."""
    between = gaps(a, b)
    overlap = max(between) < 0
    max_gap = (2 if overlap else 1) * MAX_GAP * min(size(a), size(b))
    (height_a, width_a), (height_b, width_b) = sides(a), sides(b)
    tall = min(height_a, height_b) > 0.5 * max(height_a, height_b)
    beside = tall and -between[1] < 0.3 * min(width_a, width_b)
    return -1 if beside or max(between) > max_gap else max_gap
