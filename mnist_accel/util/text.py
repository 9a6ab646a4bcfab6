"""Text for messages: lines, plurals, paths, commands for the user's shell, other encodings."""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

# Replacements of characters that the encoding of Western Windows systems (cp1252) or ASCII lacks.
_SIMPLE = str.maketrans({"→": "->", "×": "x", "−": "-", "–": "-", "≥": ">=", "≤": "<=", "…": "..."})


def one_line(text: object) -> str:
    """Return `str(text)` with each run of whitespace replaced by one space."""
    return " ".join(str(text).split())


def excerpt(text: object, *, max_chars: int = 200) -> str:
    """Return the beginning of `str(text)` as one line, with control characters escaped.

    For messages that contain text of a file, which may be long or hostile.
    """
    line = one_line(str(text)[: max_chars + 1])
    escaped = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return escaped if len(escaped) <= max_chars else f"{escaped[:max_chars]}…"


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
    if sys.platform != "win32":
        return shlex.join(arguments)
    return " ".join(map(_quote_for_windows, arguments))


def _quote_for_windows(argument: str) -> str:
    if re.fullmatch(r"[\w\\/:.=+-]+", argument):
        return argument
    # Programs read backslashes before a quotation mark as escapes, so these are doubled.
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', argument)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'


def encodable(text: str, stream: TextIO) -> str:
    """Replace the characters that the encoding of a stream lacks by simple ones, or by "?"."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_SIMPLE).encode(encoding, "replace").decode(encoding)
    return text
