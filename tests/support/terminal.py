"""A terminal in memory, and the text it would show."""

import io
import re


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


def without_colors(text):
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def screen(text):
    """Return the lines that a terminal shows after `text`, which may move the cursor and erase."""
    lines = [""]
    for part in re.split(r"(\n|\r|\x1b\[\??[\d;]*[A-Za-z])", text):
        if part == "\n":
            lines.append("")
        elif part == "\r":
            lines[-1] = "\r" + lines[-1].lstrip("\r")
        elif part == "\x1b[2K":
            lines[-1] = ""
        elif part == "\x1b[1A":
            lines.pop()
        elif not part.startswith("\x1b") and part:
            lines[-1] = part if lines[-1].startswith("\r") else lines[-1] + part
    return [line.lstrip("\r") for line in lines]
