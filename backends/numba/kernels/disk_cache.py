"""Numba's cache on disk, which treats damaged files as absent and a full disk as no cache.

A power failure, a full disk or an interrupted copy leaves files that are empty, cut off or wrong.
Numba would raise an error at each start until they are removed, or run wrong machine code.
Therefore each file ends with a checksum of its content. The modification of Numba's classes is
limited to this file.
"""

import contextlib
import hashlib
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba.core.caching

from backends.compilation import record_compilation
from backends.numba.kernels.vector_width import VECTOR_BYTES

caching: Any = numba.core.caching  # without annotations

_DIGEST_BYTES = 16
# The problems of this process so far, by kind; the first problem of each kind gives a warning.
problems: dict[str, str] = {}


class DamagedFileError(Exception):
    """The content of a file does not have its checksum."""


class _CheckedFiles(caching.IndexDataCacheFile):  # type: ignore[misc]
    """The index file of a function and its data files, with checksums."""

    def _load_index(self) -> dict[Any, str]:
        self._require_checksum(Path(self._index_path))
        found: dict[Any, str] = super()._load_index()
        return found

    def _load_data(self, name: str) -> Any:
        self._require_checksum(Path(self._data_path(name)))
        return super()._load_data(name)

    @contextlib.contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[Any]:
        with super()._open_for_write(filepath) as file:
            checked = _CheckedWriter(file)
            yield checked
            checked.finish()

    def _require_checksum(self, path: Path) -> None:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return  # Numba handles it
        if _digest(content[:-_DIGEST_BYTES]) != content[-_DIGEST_BYTES:]:
            raise DamagedFileError(f"{path} is damaged")

    def delete(self) -> None:
        """Delete the index, so that the data files count as absent."""
        with contextlib.suppress(OSError):
            Path(self._index_path).unlink(missing_ok=True)


class _CheckedWriter:
    """A binary file to write to, which gets a checksum at its end."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._hash = hashlib.blake2b(digest_size=_DIGEST_BYTES)

    def write(self, content: bytes) -> int:
        self._hash.update(content)
        written: int = self._file.write(content)
        return written

    def finish(self) -> None:
        """Write the checksum of everything written before."""
        self._file.write(self._hash.digest())


class TolerantCache(caching.FunctionCache):  # type: ignore[misc]
    """The cache of one function; problems with its files give warnings, not errors.

    Raises:
        RuntimeError: Numba finds no folder that can be written.
    """

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._cache_file = _CheckedFiles(
            self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp()
        )

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        """Return the key of compiled code, which also depends on the width of vectors."""
        return (*super()._index_key(sig, codegen), VECTOR_BYTES)

    def is_empty(self) -> bool:
        """Return whether the disk has no usable code of this function."""
        try:
            return not self._cache_file._load_index()
        except Exception:  # unreadable or damaged
            return True

    def is_missing(self, sig: Any, target_context: Any) -> bool:
        """Return whether the disk has no code of this function for arguments of some types."""
        try:
            known = self._cache_file._load_index()
        except Exception:  # unreadable or damaged
            return True
        return self._index_key(sig, target_context.codegen()) not in known

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return compiled code, or None if there is none or its files are damaged."""
        loaded = None
        try:
            loaded = super().load_overload(sig, target_context)
        except OSError as error:
            report_unusable(self._cache_path, error)
        except Exception:  # damaged pickles raise errors of any type
            _report(
                "damaged",
                f"compiled code in {self._cache_path} is damaged; it is deleted and compiled again",
            )
            self._cache_file.delete()
        if loaded is None:
            record_compilation(self._py_func.__name__)
        return loaded

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write compiled code to the disk, if possible."""
        try:
            super().save_overload(sig, data)
        except (DamagedFileError, pickle.UnpicklingError, EOFError):
            self._cache_file.delete()  # another process has just left a damaged index
        except OSError as error:
            report_unusable(self._cache_path, error)


class NoCache(caching.NullCache):  # type: ignore[misc]
    """Takes the place of a cache if there is no folder that can be written."""

    def __init__(self, function: Any) -> None:
        self._name = function.__name__

    def is_empty(self) -> bool:
        """Return True: nothing is kept."""
        return True

    def is_missing(self, sig: Any, target_context: Any) -> bool:
        """Return True: nothing is kept."""
        return True

    def load_overload(self, sig: Any, target_context: Any) -> None:
        """Record that the function is compiled."""
        record_compilation(self._name)


def report_unusable(folder: str | Path, error: Exception) -> None:
    """Warn that compiled code cannot be kept in a folder."""
    reason = getattr(error, "strerror", None) or str(error)
    _report(
        "unusable",
        f"compiled code cannot be kept in {folder} ({reason}), so the next start compiles it "
        "again; make room there, or set NUMBA_CACHE_DIR to a folder that can be written",
    )


def _report(kind: str, message: str) -> None:
    """Warn, once for each kind of problem."""
    if kind not in problems:
        problems[kind] = message
        warnings.warn(message, stacklevel=2)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()
