"""A lock that one process at a time holds, such as the process that writes a run folder.

The lock file names its holder. The operating system locks it, and releases it when the process
ends, even if the process is killed. This works between containers of one machine and, with most
network file systems, between machines. If a file system has no locks, the modification time of the
file decides: the holder renews it regularly, so an old file belongs to a process that has ended.
"""

import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mnist_accel.errors import DataError, UsageError, file_errors
from mnist_accel.util.files import check_regular
from mnist_accel.util.schema import decode_json

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

HEARTBEAT_S = 5.0  # time between two renewals
STALE_S = 60.0  # an older file has no holder; this is long, because clocks of machines may differ
# Windows prevents access to a locked byte, so the byte is far beyond the end of the file.
_LOCKED_BYTE = 2**30


@contextmanager
def process_lock(path: Path, activity: str) -> Iterator[None]:
    """Hold a lock within the block.

    Args:
        path: the lock file, which exists while the lock is held.
        activity: what the holder does, for the error message: "training in runs/1".

    Raises:
        UsageError: another process holds the lock; the message names the process.
        DataError: the lock file cannot be written.
    """
    with file_errors(f"write {path}"):
        descriptor = _acquire(path, activity)
    finished = threading.Event()

    def renew() -> None:
        while not finished.wait(HEARTBEAT_S):
            with suppress(OSError):
                os.utime(path)

    heartbeat = threading.Thread(target=renew, daemon=True, name="mnist_accel-lock")
    heartbeat.start()
    try:
        yield
    finally:
        finished.set()
        heartbeat.join()
        _release(path, descriptor)


def _acquire(path: Path, activity: str) -> int:
    """Return the descriptor of the lock file, which names this process from now on."""
    while True:
        # Without O_NONBLOCK, some systems wait for the other end of a named pipe.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
        try:
            check_regular(os.fstat(descriptor).st_mode, path)
            is_locked = _lock(descriptor)
            if is_locked is False:
                raise _refusal(path, activity, _holder(descriptor))
            if not _is_at(descriptor, path):  # its holder has just removed the file
                os.close(descriptor)
                continue
            holder = _holder(descriptor)
            is_fresh = time.time() - os.fstat(descriptor).st_mtime < STALE_S
            # On one machine, a lock that was free proves that the earlier holder has ended.
            if holder and is_fresh and not (is_locked and holder.get("boot") == _boot_id()):
                raise _refusal(path, activity, holder)
            _write(descriptor)
        except BaseException:
            with suppress(OSError):
                os.close(descriptor)
            raise
        return descriptor


def _lock(descriptor: int) -> bool | None:
    """Lock the file; return False if another process has locked it, None if locks do not work."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter on Windows
        return False
    except OSError:  # the file system has no locks
        return None
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether the open file is still in its folder; Windows removes no open file."""
    if sys.platform == "win32":
        return True
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> dict[str, Any]:
    """Return the content of the lock file; empty if there is none."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        text = os.read(descriptor, 4096)
        return decode_json(text, dict[str, Any], name="it", kind="a lock file")
    except (OSError, DataError):
        return {}


def _write(descriptor: int) -> None:
    """Write the identity of this process to the lock file."""
    identity = {
        "host": platform.node(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "boot": _boot_id(),
    }
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(identity).encode())


def _release(path: Path, descriptor: int) -> None:
    """Remove the lock file, unless another process took it over, and close it."""
    with suppress(OSError):
        if sys.platform == "win32":  # fails if another process has opened the file
            os.close(descriptor)
            path.unlink(missing_ok=True)
            return
        if _is_at(descriptor, path):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _refusal(path: Path, activity: str, holder: dict[str, Any]) -> UsageError:
    """Return the error that names the holder."""
    known = {key: str(holder.get(key, "unknown"))[:80] for key in ("pid", "host", "started")}
    return UsageError(
        f"another process is {activity}: process {known['pid']} on "
        f"{known['host']}, since {known['started']}; wait until it ends, or stop it "
        f"(if it is gone, delete {path})"
    )


def _boot_id() -> str:
    """Return an identifier of the running system, shared by its containers; empty if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()
