"""Writes that a crash cannot leave half done, and the user's cache folder."""

import errno
import os
import secrets
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path

from backends import shown

_SUFFIX = ".unfinished"
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_MAX_WAIT_S = 2.0  # on Windows, for a program that reads the file to be replaced
# Do not follow links or convert line ends. Not every system has both flags.
_SAFE_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def as_path(name: str, value: str | os.PathLike[str]) -> Path:
    """Return `value` as a path.

    Raises:
        TypeError: it is neither a string nor a path.
        ValueError: it is an empty string, which would mean the current folder.
    """
    if isinstance(value, str) and not value:
        raise ValueError(f"{name} is empty, expected the path of a file or a folder")
    try:
        return Path(value)
    except TypeError:
        raise TypeError(f"{name} must be a string or a pathlib.Path, got {shown(value)}") from None


def check_regular(mode: int, path: str | os.PathLike[str]) -> None:
    """Require that `mode`, from `os.stat`, is that of a regular file.

    Raises:
        OSError: it is that of a folder, a named pipe, a socket or a device.
    """
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "not a regular file")
        raise OSError(errno.EINVAL, f"it is {kind}, expected a file", path)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the content of the file at `path` in one step.

    The bytes go to a temporary file in the same folder, which is renamed after they are on the
    disk. Therefore other processes see either the old file or the new one, and the old one stays if
    the process is killed. The permissions of a replaced file are kept. The folder is created if
    necessary.

    Raises:
        OSError: the file cannot be written, or `path` is a device or another special file, such as
            `/dev/stdout`. The old file, if any, is unchanged.
    """
    with suppress(FileNotFoundError):
        check_regular(path.stat().st_mode, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = _open_temporary(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def append_or_nothing(path: Path, content: bytes) -> None:
    """Append `content` to the file at `path`, which is created if necessary.

    If that fails, for example because the disk is full, the file keeps its old length. A link at
    `path` is not followed.

    Raises:
        OSError: the file cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _SAFE_FLAGS, 0o666)
    try:
        length = os.fstat(descriptor).st_size
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except BaseException:
            os.ftruncate(descriptor, length)
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Write the content of a file to the disk, so that it survives a power failure.

    Raises:
        OSError: the file cannot be opened or written.
    """
    descriptor = os.open(path, os.O_RDWR | _SAFE_FLAGS)
    try:
        os.fsync(descriptor)
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


def _open_temporary(path: Path) -> tuple[int, Path]:
    """Create a temporary file beside `path`, with its permissions, and return it open.

    Its name is random, because process and thread numbers repeat in containers that share a folder.
    The file must not exist, so no link with this name is followed.
    """
    mode = _permissions(path)
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_SUFFIX}")
        try:
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE_FLAGS, 0o666
            )
        except FileExistsError:
            continue
        if mode is not None:
            with suppress(OSError):  # some file systems have no permissions
                # By descriptor where possible: another user could replace the file by a link.
                os.chmod(descriptor if os.chmod in os.supports_fd else temporary, mode)  # noqa: PTH101
        return descriptor, temporary


def _replace(temporary: Path, path: Path) -> None:
    """Rename a file to a name that may exist.

    On Windows this fails while another program, such as a virus scanner, reads the existing file.
    """
    end = time.monotonic() + _MAX_WAIT_S
    while True:
        try:
            temporary.replace(path)
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


def _permissions(path: Path) -> int | None:
    """Return the permissions of a regular file; None if there is none at `path`."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return None
    return mode & 0o777 if stat.S_ISREG(mode) else None


def _sync_folder(folder: Path) -> None:
    """Write a renamed entry of a folder to the disk, so that it survives a power failure.

    Windows cannot open a folder, and some file systems cannot sync one. This is not an error,
    because the new file is already in its place.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
