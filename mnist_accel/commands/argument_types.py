"""Types of argument values: each returns the value, or raises an error that states its range."""

import argparse
import math
from collections.abc import Callable, Iterable
from typing import Any

from backends import unknown_name

# Bounds a batch or a layer: larger arrays of 784 float64 values exceed the sizes that NumPy can
# represent. Smaller ones may still not fit into memory, which shows when they are allocated.
MAX_SIZE = 10**15


def one_of(kind: str, names: Iterable[str]) -> dict[str, Any]:
    """Return the `type` and `metavar` of an argument whose value is one of `names`.

    Unlike `choices` of argparse, the error suggests the name that is spelled most similarly.
    """
    known = tuple(names)

    def parse(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(unknown_name(kind, text, known))
        return text

    return {"type": parse, "metavar": "{" + ",".join(known) + "}"}


def integer(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Return a function that parses an integer in the range from `minimum` to `maximum`."""
    expected = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum or (maximum is not None and value > maximum):
            raise argparse.ArgumentTypeError(
                f"expected an integer {expected}, got {text or 'nothing'}"
            )
        return value

    return parse


def number(
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
    at_most: float = math.inf,
) -> Callable[[str], float]:
    """Return a function that parses a finite number in a range."""
    bounds = {"above": above, "of at least": at_least, "below": below, "at most": at_most}
    finite = [f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound)]
    expected = " and ".join(finite) or "that is finite"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and above < value < below and at_least <= value <= at_most):
            raise argparse.ArgumentTypeError(
                f"expected a number {expected}, got {text or 'nothing'}"
            )
        return value

    return parse


def sizes(text: str) -> tuple[int, ...]:
    """Parse "128,64" into (128, 64)."""
    size = integer(1, MAX_SIZE)
    return tuple(size(part.strip()) for part in text.split(","))
