"""Writing a file whole or not at all."""

import os
import threading
from pathlib import Path

_SUFFIX = ".unfinished"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at `path` by `content`, so that nobody ever sees half of it.

    The bytes go to a temporary file beside it, which is renamed once they are safely on the disk. A
    process that is killed, or a disk that is full, leaves the earlier file as it was.

    Args:
        path: the file; its folder is made if need be.
        content: what it shall hold.

    Raises:
        OSError: it cannot be written; the earlier file, if any, is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Named after the thread, whose number no other one on the machine has: two that write the same
    # file at once do not write into each other's.
    temporary = path.with_name(f".{path.name}.{threading.get_native_id()}{_SUFFIX}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what a process that was killed while writing files of `folder` left there.

    Raises:
        OSError: it cannot be removed.
    """
    for temporary in folder.glob(f".*{_SUFFIX}"):
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
