"""Tables of named entries, and lookup with an error message that lists the known names."""

from collections import UserDict
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")

_MAX_COMPARED_CHARS = 100


class Table(UserDict[str, T]):
    """Entries by name, to which users add their own; an entry cannot be replaced.

    Compiled code finds its kernels by these names, so a name must keep its meaning. A class can be
    defined again, for example if a cell of a notebook runs twice.

    Args:
        kind: what the table holds, such as "activation"; part of the error message.
        entries: the built-in entries.
    """

    def __init__(self, kind: str, entries: Mapping[str, T]) -> None:
        self._kind = kind
        super().__init__(entries)

    def __setitem__(self, name: str, entry: T) -> None:
        """Add an entry.

        Raises:
            ValueError: the table has another entry with this name.
        """
        taken_by = self.data.get(name, entry)
        if taken_by is not entry and _origin(taken_by) != _origin(entry):
            raise ValueError(
                f"the {self._kind} {name!r} exists already ({_origin(taken_by)}); "
                "choose another name"
            )
        self.data[name] = entry


def _origin(entry: object) -> str:
    """Return the module and the name of a class; the representation of another object."""
    return f"{entry.__module__}.{entry.__qualname__}" if isinstance(entry, type) else repr(entry)


def look_up(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Return `table[name]`.

    Args:
        kind: what the table holds, such as "activation"; part of the error message.
        name: key of the entry.
        table: the entries by name.

    Raises:
        ValueError: the table has no such key; the message lists the keys.
        TypeError: `name` is not a string.
    """
    if not isinstance(name, str):
        raise TypeError(f"{kind} must be one of {', '.join(table)}, got {name!r}")
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
