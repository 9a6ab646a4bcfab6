"""The source of an image: a file or a binary stream."""

import os
from typing import BinaryIO

from backends import shown

Source = str | os.PathLike[str] | BinaryIO


def source_name(source: Source) -> str:
    """Return the name of a source in messages: the path of a file, or "stdin" for a stream.

    Raises:
        TypeError: the source is neither a path nor a stream.
    """
    if isinstance(source, str | os.PathLike):
        return str(source)
    if not hasattr(source, "read"):
        raise TypeError(
            f"path must be a string, a pathlib.Path or a binary stream, got {shown(source)}"
        )
    return "stdin"
