"""The source of an image: a file or a binary stream."""

import os
from typing import BinaryIO

Source = str | os.PathLike[str] | BinaryIO


def source_name(source: Source) -> str:
    """Return what messages call a source: the path of a file, or "stdin" for a stream."""
    return str(source) if isinstance(source, str | os.PathLike) else "stdin"
