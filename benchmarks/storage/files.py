"""Reading and writing result files."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.storage.journal import SUFFIX, Journal
from benchmarks.storage.schema import ResultFile, schema_error
from mnist_accel.errors import UsageError
from mnist_accel.util.files import write_atomically


def read_run(path: Path) -> ResultFile:
    """Return the content of a result file, or of the journal of an unfinished run.

    Raises:
        UsageError: the file cannot be read or has another format.
    """
    try:
        if path.name.endswith(SUFFIX):
            return msgspec.convert(Journal.read(path).document(), ResultFile)
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        return msgspec.json.decode(content, type=ResultFile)
    except OSError as error:  # includes gzip.BadGzipFile
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    except msgspec.ValidationError as error:
        raise schema_error(str(path), error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not a JSON file: {error}") from error


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Write a result file, compressed if its name ends in .gz.

    Raises:
        UsageError: the file cannot be written.
    """
    content = json.dumps(document, indent=4).encode()
    try:
        write_atomically(path, gzip.compress(content) if path.suffix == ".gz" else content)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
