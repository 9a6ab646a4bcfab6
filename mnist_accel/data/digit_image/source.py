"""Where the content of an image file comes from."""

import os
from typing import BinaryIO

Source = str | os.PathLike[str] | BinaryIO


def source_name(source: Source) -> str:
    """Return the path of a file, or "stdin" for a stream, for messages."""
    return str(source) if isinstance(source, str | os.PathLike) else "stdin"
