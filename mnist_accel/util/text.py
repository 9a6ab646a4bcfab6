"""Text for messages: single lines, plurals, paths without the user's name."""

import re
from pathlib import Path


def one_line(text: object) -> str:
    """Return `str(text)` with each run of whitespace replaced by one space."""
    return " ".join(str(text).split())


def count(number: int, noun: str) -> str:
    """Return a number with its noun: "1 thread", "2 threads", "1,797 images"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def abbreviate_home(text: str) -> str:
    """Return `text` with each occurrence of the user's home folder replaced by `~`."""
    home = re.escape(str(Path.home()))
    return text if home == "/" else re.sub(rf"(?<![\w./-]){home}(?![\w.-])", "~", text)
