"""What is said of a name that nothing has."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that nothing of a kind has this name, what has which, and which may have been meant."""
    names = tuple(known)
    close = get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {name!r}; choose {', '.join(names)}{hint}"
