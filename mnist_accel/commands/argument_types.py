"""Types of argument values. Each function returns the `type` and `metavar` of an argument.

The type raises an error that states the accepted values.
"""

import argparse
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from backends import NO_ALIASES, Aliases, resolve_name

T = TypeVar("T")

# Limit of a batch or a layer: NumPy cannot represent the size of a larger array of 784 float64
# columns. Whether a smaller array fits into memory shows when it is allocated.
MAX_SIZE = 10**15
_EXTENSIBLE = ("model", "activation", "optimizer", "schedule")  # a module of the user adds names


def one_of(kind: str, names: Iterable[str], aliases: Aliases = NO_ALIASES) -> dict[str, Any]:
    """Return the type of one of `names`, in any spelling that `resolve_name` accepts.

    Unlike with `choices` alone, the error suggests the name that is spelled most similarly.
    """
    known = tuple(names)
    hint = "; --import MODULE adds your own" if kind in _EXTENSIBLE else ""

    def find(text: str) -> str:
        try:
            return resolve_name(kind, text, known, aliases)
        except ValueError as error:
            raise ValueError(f"{error}{hint}") from None

    # Shell completion proposes the choices; the type returns no other value.
    return {"type": from_text(find), "choices": known, "metavar": "{" + ",".join(known) + "}"}


def from_text(convert: Callable[[str], T]) -> Callable[[str], T]:
    """Return `convert` as a type whose `ValueError` is the message of the parser."""

    def parse(text: str) -> T:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse


def integer(minimum: int, maximum: int | None = None) -> dict[str, Any]:
    """Return the type of an integer from `minimum` to `maximum`."""
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

    return {"type": parse, "metavar": "N"}


def file_name(suffix: str) -> dict[str, Any]:
    """Return the type of a file to write in one format, whose name must end in `suffix`.

    So a mistake in the order of arguments replaces no file of another kind.
    """

    def parse(text: str) -> Path:
        if Path(text).suffix.lower() != suffix:
            raise argparse.ArgumentTypeError(
                f"expected a file name that ends in {suffix}, got {text!r}"
            )
        return Path(text)

    return {"type": parse, "metavar": f"FILE{suffix}"}


def number(
    metavar: str,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
    at_most: float = math.inf,
) -> dict[str, Any]:
    """Return the type of a finite number within bounds, shown as `metavar` in the help text."""
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

    return {"type": parse, "metavar": metavar}


def sizes() -> dict[str, Any]:
    """Return the type of a list of layer sizes: "128,64" becomes (128, 64)."""
    size = integer(1, MAX_SIZE)["type"]

    def parse(text: str) -> tuple[int, ...]:
        return tuple(size(part.strip()) for part in text.split(","))

    return {"type": parse, "metavar": "N,N"}


def list_of(parse: Any, separator: str) -> Callable[[str], list[Any]]:
    """Return the type of one or several values with a separator: "0.1,0.2" becomes [0.1, 0.2]."""

    def parse_all(text: str) -> list[Any]:
        return [parse(part.strip()) for part in text.split(separator)]

    return parse_all


def seeds() -> dict[str, Any]:
    """Return the type of seeds: their number, or a list with commas."""
    number, seed = integer(1)["type"], integer(0)["type"]

    def parse(text: str) -> Any:
        return [seed(part.strip()) for part in text.split(",")] if "," in text else number(text)

    return {"type": parse, "metavar": "N"}
