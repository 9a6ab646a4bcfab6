"""A cache of measurements, so that each combination is measured once per machine.

The cache has one JSON file per measurement. The file contains everything that the result depends on
under "key"; its name is a digest of this key. To measure again, delete the folder. The names
"trials" and "paces" are those of release 0.1.0.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from mnist_accel.autotune.measure import Candidate
from mnist_accel.errors import DataError
from mnist_accel.util.files import cache_folder, write_atomically
from mnist_accel.util.input_files import read_regular
from mnist_accel.util.schema import AtLeastOne, Name, Positive, decode_json

_MAX_BYTES = 2**20


class _CachedMeasurement(Struct, frozen=True):
    """The content of a file: images per second by backend and number of threads."""

    key: dict[str, Any]
    paces: list[tuple[Name, AtLeastOne | None, Positive]]


def measurements_folder() -> Path:
    """Return the folder of cached measurements."""
    return cache_folder("trials")


def load_measurements(
    key: Mapping[str, Any], candidates: Sequence[Candidate]
) -> dict[Candidate, float] | None:
    """Return the cached images per second by candidate; None if no valid file exists.

    An unreadable or damaged file causes a warning.

    Args:
        key: everything that the result depends on, as JSON values.
        candidates: the candidates that the result may contain.
    """
    file = _file(key)
    try:
        text = read_regular(file, max_bytes=_MAX_BYTES)
        content = decode_json(text, _CachedMeasurement, name="it", kind="a cached measurement")
        if content.key != key:
            raise DataError("its key belongs to another measurement")
        images_per_s = {Candidate(name, threads): v for name, threads, v in content.paces}
        if not images_per_s or not images_per_s.keys() <= set(candidates):
            raise DataError("it has other candidates")
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn(f"cannot be read ({error.strerror or error})", file)
    except DataError as error:
        _warn(f"is damaged ({error})", file)
    else:
        return images_per_s
    return None


def save_measurements(key: Mapping[str, Any], images_per_s: Mapping[Candidate, float]) -> None:
    """Store measurements in the cache. A failure causes a warning."""
    rows = [[candidate.backend, candidate.threads, v] for candidate, v in images_per_s.items()]
    text = json.dumps({"key": key, "paces": rows}, indent=2) + "\n"
    file = _file(key)
    try:
        write_atomically(file, text.encode())
    except OSError as error:
        warnings.warn(
            f"cannot cache autotune results in {file.parent} ({error.strerror or error}), so each "
            "training measures again; make the folder writable, or give --backend and --threads",
            stacklevel=2,
        )


def _file(key: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return measurements_folder() / f"{digest[:16]}.json"


def _warn(problem: str, file: Path) -> None:
    warnings.warn(f"{file} {problem}; backends and threads are measured again", stacklevel=3)
