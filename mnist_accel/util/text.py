"""Text for messages: lines, plurals, paths, commands for the user's shell, other encodings."""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from mnist_accel.errors import escaped

# Replacements of characters that the encoding of Western Windows systems (cp1252) or ASCII lacks.
_SIMPLE = str.maketrans({"→": "->", "×": "x", "−": "-", "–": "-", "≥": ">=", "≤": "<=", "…": "..."})


def one_line(text: object) -> str:
    """Return `str(text)` with each run of whitespace replaced by one space."""
    return " ".join(str(text).split())


def excerpt(text: object, *, max_chars: int = 200) -> str:
    """Return the beginning of `str(text)` as one line, with control characters escaped.

    For messages that contain text of a file, which may be long or hostile.
    """
    whole = str(text).rstrip()
    line = escaped(one_line(whole[: max_chars + 1]))
    return line if max(len(whole), len(line)) <= max_chars else f"{line[:max_chars]}…"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: "1 thread", "2 threads", "1,797 images"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def abbreviate_home(text: str) -> str:
    """Return `text` with each occurrence of the user's home folder replaced by `~`."""
    home = re.escape(str(Path.home()))
    return text if home == "/" else re.sub(rf"(?<![\w./-]){home}(?![\w.-])", "~", text)


def shell_command(arguments: Sequence[str]) -> str:
    """Return a command line with these arguments, quoted for the user's shell.

    On Windows, cmd and PowerShell both understand double quotes.
    """
    quote = _quote_for_windows if sys.platform == "win32" else _quote_for_posix
    return " ".join(map(quote, arguments))


def _quote_for_posix(argument: str) -> str:
    """Return a quoted argument; one that cannot be printed is written as bash and zsh read it."""
    if argument.isprintable():
        return shlex.quote(argument)
    escaped_bytes = (
        character
        if character.isprintable() and character not in "\\'"
        else "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
        for character in argument
    )
    return f"$'{''.join(escaped_bytes)}'"


def _quote_for_windows(argument: str) -> str:
    if re.fullmatch(r"[\w\\/:.=+-]+", argument):
        return argument
    # Programs read backslashes before a quotation mark as escapes, so these are doubled.
    with_quotes = re.sub(r'(\\*)"', r'\1\1\\"', argument)
    return '"' + re.sub(r"(\\+)$", r"\1\1", with_quotes) + '"'


def displayable(text: str, stream: TextIO) -> str:
    """Return text with control characters escaped, except line feeds.

    The characters that the encoding of the stream lacks become simple ones, or question marks.
    """
    safe = "\n".join(map(escaped, text.split("\n")))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        safe.encode(encoding)
    except UnicodeEncodeError:
        return safe.translate(_SIMPLE).encode(encoding, "replace").decode(encoding)
    return safe
