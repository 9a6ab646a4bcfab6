"""Text for messages: lines, plurals, paths without the user's name, other encodings."""

import re
from pathlib import Path
from typing import TextIO


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


def encodable(text: str, stream: TextIO) -> str:
    """Replace the characters that the encoding of a stream lacks by question marks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
