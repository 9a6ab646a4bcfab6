"""Tables of named entries, the spellings of names that users give, and errors for unknown names."""

from collections import UserDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from types import MappingProxyType
from typing import TypeVar

T = TypeVar("T")
# The entries that each alias means. An alias with several entries is refused as ambiguous.
Aliases = Mapping[str, Sequence[str]]

NO_ALIASES: Aliases = MappingProxyType({})
_MAX_COMPARED_CHARS = 100
_with_flags = ContextVar("_with_flags", default=False)
_MAX_SHOWN_CHARS = 80


class Table(UserDict[str, T]):
    """Entries by name, to which users add their own; an entry cannot be replaced.

    Compiled code finds its kernels by the built-in names, so these cannot be removed either. A
    class can be defined again, for example if a cell of a notebook runs twice.

    Args:
        kind: what the table holds, such as "activation"; part of the error message.
        entries: the built-in entries.
    """

    def __init__(self, kind: str, entries: Mapping[str, T]) -> None:
        self._kind = kind
        self._built_in = frozenset(entries)
        super().__init__(entries)

    def __setitem__(self, name: str, entry: T) -> None:
        """Add an entry.

        Raises:
            ValueError: the table has another entry with this name, in any spelling.
        """
        for taken, other in self.data.items():
            is_same = taken == name and (other is entry or _origin(other) == _origin(entry))
            if spelling(taken) == spelling(name) and not is_same:
                raise ValueError(
                    f"the {self._kind} {taken!r} exists already ({_origin(other)}); "
                    f"choose another name than {name!r}"
                )
        self.data[name] = entry

    def __delitem__(self, name: str) -> None:
        """Remove an entry of the user.

        Raises:
            ValueError: the entry is built in.
        """
        if name in self._built_in:
            raise ValueError(f"the {self._kind} {name!r} is built in and cannot be removed")
        del self.data[name]


def _origin(entry: object) -> str:
    """Return the module and the name of a class; the representation of another object."""
    return f"{entry.__module__}.{entry.__qualname__}" if isinstance(entry, type) else repr(entry)


def resolve_name(kind: str, name: str, known: Iterable[str], aliases: Aliases = NO_ALIASES) -> str:
    """Return the known name that `name` means: "LeNet" means "lenet".

    Case, hyphens and underscores are ignored.

    Args:
        kind: what has the name, such as "activation"; part of the error message.
        name: a name as the user wrote it.
        known: the names to choose from.
        aliases: the known names that each alias means. Aliases are in lower case without hyphens
            and underscores.

    Raises:
        TypeError: the name is not a string.
        ValueError: no known name is spelled like this, or several are.
    """
    if not isinstance(name, str):
        raise TypeError(f"{kind} must be one of {', '.join(known)}, got {shown(name)}")
    names = tuple(known)
    if name in names:
        return name
    key = spelling(name)
    found = [one for one in names if spelling(one) == key] or list(aliases.get(key, ()))
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{kind} {name!r} is ambiguous; choose {' or '.join(found)}")
    raise ValueError(unknown_name(kind, name, names, aliases))


def look_up(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Return `table[name]`; unlike in `resolve_name`, the name must be spelled exactly.

    Args:
        kind: what the table holds, such as "activation"; part of the error message.
        name: key of the entry.
        table: the entries by name.

    Raises:
        ValueError: the table has no such key; the message lists the keys.
        TypeError: `name` is not a string.
    """
    if not isinstance(name, str):
        raise TypeError(f"{kind} must be one of {', '.join(table)}, got {shown(name)}")
    try:
        return table[name]
    except KeyError:
        raise ValueError(unknown_name(kind, name, table)) from None


def unknown_name(kind: str, name: str, known: Iterable[str], aliases: Aliases = NO_ALIASES) -> str:
    """Return an error message that lists the known names and suggests the closest one."""
    names = tuple(known)
    close = closest_name(name, names, aliases)
    hint = f"; did you mean {close!r}?" if close else ""
    return f"unknown {kind} {name!r}; choose from {', '.join(names)}{hint}"


def closest_name(name: str, known: Iterable[str], aliases: Aliases = NO_ALIASES) -> str | None:
    """Return the known name whose spelling is most similar to `name`; None if none is similar."""
    spellings = {spelling(one): one for one in known}
    spellings |= {alias: names[0] for alias, names in aliases.items() if len(names) == 1}
    # A damaged file may contain a name of any type or length. For long names the search would take
    # seconds.
    text = str(name)
    if len(text) > _MAX_COMPARED_CHARS:
        return None
    close = get_close_matches(spelling(text), spellings, n=1)
    return spellings[close[0]] if close else None


@contextmanager
def flags_in_messages() -> Iterator[None]:
    """Let `option` return the flags of the commands."""
    token = _with_flags.set(True)
    try:
        yield
    finally:
        _with_flags.reset(token)


def option(name: str, value: object = None) -> str:
    """Return an option for a message as the user gives it: "test_split", or "--test-split".

    Args:
        name: name of the argument in Python. The flag of the commands has the same name.
        value: its value, if the message proposes one: "kind='features'", or "--kind features".
    """
    if not _with_flags.get():
        return name if value is None else f"{name}={value!r}"
    flag = "--" + name.replace("_", "-")
    return flag if value is None else f"{flag} {value}"


def spelling(name: str) -> str:
    """Return a name in lower case without hyphens and underscores."""
    return name.casefold().replace("-", "").replace("_", "")


def shown(value: object) -> str:
    """Return the representation of a value for a message: one line of at most 80 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _MAX_SHOWN_CHARS else text[: _MAX_SHOWN_CHARS - 1] + "…"
