"""Whether a folder can be written."""

import tempfile
from pathlib import Path


def check_writable(folder: Path) -> None:
    """Try to write to a folder, or to where it would be made, leaving nothing behind.

    Raises:
        OSError: it cannot be written.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    # Permissions say little: file systems are mounted read-only, and root may write anywhere.
    with tempfile.TemporaryFile(dir=existing) as file:
        file.write(b"\0")
