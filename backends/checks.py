"""Checks of the numbers and names that describe layers, update rules and trainings.

Each check converts its number to a Python `int` or `float`. A NumPy scalar in its place would
promote float32 arrays to float64, and JSON cannot hold one.
"""

import math
import operator
import sys
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from types import UnionType
from typing import Any

from backends.names import NO_ALIASES, Aliases, resolve_name, shown


def as_integer(name: str, value: Any, *, at_least: int) -> int:
    """Return `value` as an int.

    Raises:
        TypeError: `value` is not of an integer type; 2.0 is not.
        ValueError: `value` is less than `at_least`.
    """
    try:
        if isinstance(value, bool):  # a subclass of int
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {shown(value)}") from None
    if number < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {number}")
    return number


def as_integers(name: str, values: Any, *, at_least: int) -> tuple[int, ...]:
    """Return a sequence of integers as a tuple of int.

    Raises:
        TypeError: it is not a sequence, or an element is not of an integer type.
        ValueError: an element is less than `at_least`.
    """
    try:
        if isinstance(values, str | bytes | Mapping):
            raise TypeError
        numbers = tuple(as_integer(name, value, at_least=-sys.maxsize) for value in values)
    except TypeError:
        raise TypeError(f"{name} must be a sequence of integers, got {shown(values)}") from None
    if any(number < at_least for number in numbers):
        raise ValueError(f"{name} must be at least {at_least} each, got {shown(numbers)}")
    return numbers


def as_number(name: str, value: Any) -> float:
    """Return a finite number as a float.

    Raises:
        TypeError: `value` is no real number.
        ValueError: it is not finite.
    """
    return _as_float(name, value, "finite", math.isfinite)


def as_boolean(name: str, value: Any) -> bool:
    """Return True or False, also of NumPy's type, as a bool.

    Raises:
        TypeError: `value` is something else.
    """
    # NumPy's bool is no subclass of Python's; its dtype has the letter "?".
    is_scalar = getattr(value, "dtype", "") == "?" and getattr(value, "ndim", 1) == 0
    if not isinstance(value, bool) and not is_scalar:
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def require_type(name: str, value: object, kind: type | UnionType, accepted: str) -> None:
    """Require an argument of a type.

    Raises:
        TypeError: it has another one. The message says what is accepted.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {accepted}, got {shown(value)}")


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
    _set(instance, name, as_boolean(name, getattr(instance, name)))


def check_callable(instance: object, name: str) -> None:
    """Require a function, or another object that can be called."""
    value = getattr(instance, name)
    if not callable(value):
        raise TypeError(f"{name} must be a function or an initializer, got {shown(value)}")


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
    _set(instance, name, _as_float(name, getattr(instance, name), accepted, accepts))


def _as_float(name: str, value: Any, accepted: str, accepts: Callable[[float], bool]) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError:  # an integer of more than 308 digits
        number = math.inf
    if not accepts(number):
        raise ValueError(f"{name} must be {accepted}, got {number}")
    return number


def _set(instance: object, name: str, value: float | str) -> None:
    object.__setattr__(instance, name, value)  # assignment is forbidden in a frozen dataclass
