"""Atomic writes, a check for write access, and the user's cache folder."""

import os
import threading
from pathlib import Path

_SUFFIX = ".unfinished"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at `path` by `content` in one step.

    The bytes go to a temporary file in the same folder, which is renamed after they are on the
    disk. Therefore other processes see either the old file or the new one, and the old one stays if
    the process is killed. The folder is created if necessary.

    Raises:
        OSError: the file cannot be written. The old file, if any, is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The native thread id is unique on the machine, so two writers of the same file never share a
    # temporary file.
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
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # or else a power failure could undo the rename
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that killed processes left in `folder`.

    Raises:
        OSError: a file cannot be removed.
    """
    for temporary in folder.glob(f".*{_SUFFIX}"):
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Write a temporary file to `folder`, or to its nearest existing parent, and delete it.

    Raises:
        OSError: the folder cannot be written.
    """
    import tempfile  # imports compression modules, which `import mnist_accel` does not need

    existing = next(path for path in (folder, *folder.parents) if path.exists())
    # Permission bits are not enough: a file system may be mounted read-only, and root ignores them.
    with tempfile.TemporaryFile(dir=existing) as file:
        file.write(b"\0")


def cache_folder(name: str) -> Path:
    """Return the folder `name` in the user's cache folder of this program; it may not exist yet.

    The location follows the conventions of the operating system.
    """
    import platformdirs

    return platformdirs.user_cache_path("mnist_accel", appauthor=False) / name
