"""Checks of the numbers and names that describe layers, update rules and trainings.

Each check converts its number to a Python `int` or `float`. A NumPy scalar in its place would
promote float32 arrays to float64, and JSON cannot hold one.
"""

import math
import operator
from collections.abc import Callable, Iterable
from numbers import Real
from types import UnionType
from typing import Any

from backends.names import NO_ALIASES, Aliases, resolve_name


def as_integer(name: str, value: Any, *, at_least: int) -> int:
    """Return `value` as an int.

    Raises:
        TypeError: `value` is not of an integer type; 2.0 is not.
        ValueError: `value` is less than `at_least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {number}")
    return number


def require_type(name: str, value: Any, kind: type | UnionType, accepted: str) -> None:
    """Require an argument of a type.

    Raises:
        TypeError: it has another one. The message says what is accepted.
    """
    if not isinstance(value, kind):
        is_short = value is None or isinstance(value, str | int | float | type)
        found = repr(value) if is_short else f"an object of type {type(value).__name__}"
        raise TypeError(f"{name} must be {accepted}, got {found}")


# The functions below check and convert one attribute of a frozen dataclass. They are called from
# its `__post_init__`.


def check_integer(instance: object, name: str, *, at_least: int) -> None:
    """Require an integer that is at least `at_least`."""
    _set(instance, name, as_integer(name, getattr(instance, name), at_least=at_least))


def check_name(
    instance: object, name: str, kind: str, known: Iterable[str], aliases: Aliases = NO_ALIASES
) -> None:
    """Require a known name of `kind`; it may be spelled as `resolve_name` accepts."""
    _set(instance, name, resolve_name(kind, getattr(instance, name), known, aliases))


def check_boolean(instance: object, name: str) -> None:
    """Require True or False."""
    value = getattr(instance, name)
    # NumPy's bool is no subclass of Python's; its dtype has the letter "?".
    if not isinstance(value, bool) and getattr(value, "dtype", "") != "?":
        raise TypeError(f"{name} must be True or False, got {value!r}")
    _set(instance, name, bool(value))


def check_positive(instance: object, name: str) -> None:
    """Require a finite number greater than 0."""
    _check(instance, name, "more than 0 and finite", lambda number: 0 < number < math.inf)


def check_non_negative(instance: object, name: str) -> None:
    """Require a finite number of at least 0."""
    _check(instance, name, "at least 0 and finite", lambda number: 0 <= number < math.inf)


def check_fraction(instance: object, name: str) -> None:
    """Require a number of at least 0 and less than 1."""
    _check(instance, name, "at least 0 and less than 1", lambda number: 0 <= number < 1)


def _check(instance: object, name: str, accepted: str, accepts: Callable[[float], bool]) -> None:
    value = getattr(instance, name)
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if not accepts(number):
        raise ValueError(f"{name} must be {accepted}, got {number}")
    _set(instance, name, number)


def _set(instance: object, name: str, value: float | str) -> None:
    object.__setattr__(instance, name, value)  # assignment is forbidden in a frozen dataclass
