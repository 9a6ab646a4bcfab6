"""Reads files that may be damaged or hostile: regular files only, and never more than a limit.

A named pipe, a socket or a device as input could block forever or never end, and a compressed file
of a few kilobytes may unpack to gigabytes. Errors are `OSError`, so that they are handled like the
errors of the file system.
"""

import errno
import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from mnist_accel.errors import DataError
from mnist_accel.util.files import check_regular
from mnist_accel.util.text import excerpt

_PIECE_BYTES = 2**20
ZIP_MAGIC = b"PK\x03\x04"
_GZIP_MAGIC = b"\x1f\x8b"

# NumPy writes no other methods. LZMA is rejected, because the file states how much memory it needs.
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ZIP_END, _ZIP64_LOCATOR = b"PK\x05\x06", b"PK\x06\x07"
_ZIP_END_BYTES, _ZIP64_LOCATOR_BYTES = 22, 20
_MAX_ZIP_COMMENT = 2**16
_MAX_ZIP_DIRECTORY = 2**16  # bytes of the list of members, enough for a thousand


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a regular file for reading.

    Raises:
        OSError: the file cannot be opened, or is a folder, a named pipe, a socket or a device.
    """
    try:
        check_regular(Path(path).stat().st_mode, path)
        # A named pipe that takes the place of the file now must not block.
        file = open(path, "rb", opener=_open_without_blocking)  # noqa: SIM115
    except ValueError as error:  # a null character
        raise OSError(errno.EINVAL, str(error), path) from error
    try:
        check_regular(os.fstat(file.fileno()).st_mode, path)
    except BaseException:
        file.close()
        raise
    return file


def check_size(file: BinaryIO, *, max_bytes: int) -> None:
    """Check the size of an open file.

    Raises:
        OSError: the file is too large.
    """
    if os.fstat(file.fileno()).st_size > max_bytes:
        raise _too_large(max_bytes, file.name)


def read_regular(path: str | os.PathLike[str], *, max_bytes: int) -> bytes:
    """Return the content of a regular file of at most `max_bytes`.

    Raises:
        OSError: as for `open_regular`, or the file is too large.
    """
    with open_regular(path) as file:
        return read_limited(file, max_bytes=max_bytes, name=str(path))


def read_limited(stream: IO[bytes], *, max_bytes: int, name: str) -> bytes:
    """Return the rest of a stream, which may have at most `max_bytes`.

    Raises:
        OSError: the stream has more bytes, or cannot be read.
    """
    content = read_at_most(stream, max_bytes + 1)
    if len(content) > max_bytes:
        raise _too_large(max_bytes, name)
    return content


def read_at_most(stream: IO[bytes], max_bytes: int) -> bytes:
    """Return the next bytes of a stream, at most `max_bytes`, without allocating more than it has.

    Raises:
        OSError: the stream cannot be read.
    """
    content = io.BytesIO()
    while (missing := max_bytes - content.tell()) and (
        piece := stream.read(min(missing, _PIECE_BYTES))
    ):
        content.write(piece)
    return content.getvalue()


def is_gzip(data: bytes) -> bool:
    """Return whether bytes are the beginning of a gzip file."""
    return data.startswith(_GZIP_MAGIC)


def unpack_gzip(data: bytes, *, max_bytes: int, name: str) -> bytes:
    """Return the content of a gzip file, at most `max_bytes` of it.

    Args:
        data: the compressed file.
        max_bytes: limit of the content; the rest is not unpacked.
        name: name of the file in error messages.

    Raises:
        DataError: the file is corrupt, or contains more than one compressed stream.
    """
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    content = io.BytesIO()
    try:
        for start in range(0, len(data), _PIECE_BYTES):
            piece = data[start : start + _PIECE_BYTES]
            content.write(stream.decompress(piece, max_bytes - content.tell()))
            if content.tell() == max_bytes:
                return content.getvalue()
            if stream.eof:
                rest = stream.unused_data, data[start + _PIECE_BYTES :]
                if any(part.strip(b"\0") for part in rest):  # tapes and disks pad files with zeros
                    raise zlib.error("other data after its end")
                return content.getvalue()
    except zlib.error as error:
        raise DataError(f"{name} is a corrupt gzip file ({error}); get it again") from error
    raise DataError(f"{name} is a corrupt gzip file (it ends too early); get it again")


def open_archive(data: bytes) -> zipfile.ZipFile:
    """Return the zip archive with these bytes.

    Raises:
        ValueError: the archive is corrupt, or lists too many members.
    """
    end = data.rfind(ZIP_END, -_ZIP_END_BYTES - _MAX_ZIP_COMMENT)
    locator = data[max(0, end - _ZIP64_LOCATOR_BYTES) : max(0, end)]
    if not 0 <= end <= len(data) - _ZIP_END_BYTES or locator.startswith(_ZIP64_LOCATOR):
        raise ValueError("it has no list of members, or is in the zip64 format")
    if int.from_bytes(data[end + 12 : end + 16], "little") > _MAX_ZIP_DIRECTORY:
        raise ValueError("it has too many members")
    with _archive_errors():
        return zipfile.ZipFile(io.BytesIO(data))


def read_member(archive: zipfile.ZipFile, member: str, *, max_bytes: int) -> bytes:
    """Return the content of a member of an archive, at most `max_bytes` of it.

    Raises:
        ValueError: the member is missing, corrupt, encrypted, or compressed with another method
            than deflate.
    """
    with _archive_errors():
        if archive.getinfo(member).compress_type not in _ZIP_METHODS:
            raise ValueError("a member is not compressed with deflate")
        with archive.open(member) as stream:
            return read_at_most(stream, max_bytes)


@contextmanager
def _archive_errors() -> Iterator[None]:
    """Raise a `ValueError` in place of the many errors of zipfile for corrupt archives."""
    try:
        yield
    except Exception as error:
        raise ValueError(excerpt(error) or type(error).__name__) from error


def _too_large(max_bytes: int, name: str) -> OSError:
    return OSError(errno.EFBIG, f"it is larger than the maximum of {max_bytes:,} bytes", name)


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
