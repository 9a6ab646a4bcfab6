"""Lookup by name, with an error message that lists the known names."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")

_MAX_COMPARED_CHARS = 100


def look_up(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Return `table[name]`.

    Args:
        kind: what the table holds, such as "activation"; part of the error message.
        name: key of the entry.
        table: the entries by name.

    Raises:
        ValueError: the table has no such key; the message lists the keys.
    """
    try:
        return table[name]
    except KeyError:
        raise ValueError(unknown_name(kind, name, table)) from None


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return an error message that lists the known names and suggests the closest one."""
    names = tuple(known)
    # A damaged file may contain a name of any type or length. For long names the search would take
    # seconds.
    text = str(name)
    close = get_close_matches(text, names, n=1) if len(text) <= _MAX_COMPARED_CHARS else []
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {name!r}; choose from {', '.join(names)}{hint}"
