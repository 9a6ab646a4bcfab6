"""What trials have measured on this machine, so that each question is asked once.

A file for each trial, named after a digest of all that its result depends on, which the file
repeats. To measure anew, remove the folder.
"""

import hashlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_accel.autotune.measure import Candidate
from mnist_accel.util.files import cache_folder, write_atomically


def trials_folder() -> Path:
    """Return where the results of trials are kept."""
    return cache_folder("trials")


def recall(
    key: Mapping[str, Any], candidates: Sequence[Candidate]
) -> dict[Candidate, float] | None:
    """Return the images per second of candidates in an earlier trial; None if there was none.

    A file that cannot be used is only a warning.

    Args:
        key: all that the result depends on, as JSON can hold it.
        candidates: those of the trial.
    """
    file = _file(key)
    try:
        content = json.loads(file.read_bytes())
        if content["key"] != key:
            raise ValueError("it belongs to another trial")
        paces = {Candidate(backend, threads): pace for backend, threads, pace in content["paces"]}
        if not paces or not paces.keys() <= set(candidates):
            raise ValueError("it has other candidates")
        if not all(0 < pace < math.inf for pace in paces.values()):
            raise ValueError("it has a pace that is none")
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn(f"cannot be read ({error.strerror or error})", file)
    except (ValueError, TypeError, KeyError) as error:
        _warn(f"is damaged ({type(error).__name__}: {error})", file)
    else:
        return paces
    return None


def remember(key: Mapping[str, Any], paces: Mapping[Candidate, float]) -> None:
    """Keep a result for the next time; where that cannot be done, it is only a warning."""
    rows = [[candidate.backend, candidate.threads, pace] for candidate, pace in paces.items()]
    text = json.dumps({"key": key, "paces": rows}, indent=2) + "\n"
    file = _file(key)
    try:
        write_atomically(file, text.encode())
    except OSError as error:
        warnings.warn(
            f"the choice of threads cannot be kept in {file.parent} ({error.strerror or error}): "
            "it is measured anew each time; mend its permissions, or give --backend and --threads",
            stacklevel=2,
        )


def _file(key: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return trials_folder() / f"{digest[:16]}.json"


def _warn(trouble: str, file: Path) -> None:
    warnings.warn(f"{file} {trouble}, so threads are measured anew", stacklevel=3)
