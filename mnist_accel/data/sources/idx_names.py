"""Finds the four IDX files of a data set under the names that are in use.

The published name `train-images-idx3-ubyte` also occurs with a dot or an underscore in place of a
hyphen, in capitals, with `test` in place of `t10k`, with a prefix such as `emnist-digits-`, with
the suffix `.gz`, and as a file within a folder of the same name.
"""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from mnist_accel.data.sources.digests import FILE_NAMES
from mnist_accel.errors import DataError

# The folder in which torchvision keeps the files.
_RAW = "raw"
_NAME = re.compile(
    r"(?P<prefix>(?:[^.].*[-_.])?)(?P<part>train|t10k|test)[-_.]?"
    r"(?P<kind>images[-_.]?idx3|labels[-_.]?idx1)[-_.]?ubyte(?:\.gz)?",
    re.IGNORECASE,
)
_TEST_WORDS = ("t10k", "test")
_MAX_ENTRIES = 10_000  # entries of one folder; the folder of a data set has few

# The four files of a data set by their published names.
IdxFiles = dict[str, Path]


def is_idx_name(name: str) -> bool:
    """Return whether a file with this name may be one of the four files."""
    return _NAME.fullmatch(name) is not None


def prefix_of(name: str) -> str:
    """Return the prefix of the name of an IDX file, such as "emnist-digits-", in lower case."""
    match = _NAME.fullmatch(name)
    return match["prefix"].lower() if match else ""


def find_idx_files(folder: Path, dataset: str, *, prefix: str | None = None) -> IdxFiles:
    """Return the paths of the four IDX files of a data set by their published names.

    They are looked for in the subfolder with the name of the data set, in `folder` itself, and in
    its other subfolders, and within each of these also in the subfolder `raw` of torchvision.

    Args:
        folder: the folder.
        dataset: name of the data set.
        prefix: prefix of the names of the files; None for any.

    Raises:
        DataError: a file is missing, or there are several sets of four files. The message names the
            files that were found.
        OSError: `folder` cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist, expected the four IDX files, plain or .gz")
    subfolders = [path for path in _list(folder) if path.is_dir()]
    named = [path for path in subfolders if _normalize(path.name) == _normalize(dataset)]
    others = [path for path in subfolders if path not in named and not is_idx_name(path.name)]
    for group in (named, [folder], others):
        places = [place for path in group for place in (path, path / _RAW) if place.is_dir()]
        found = [files for place in places for files in _sets_in(place, prefix)]
        if len(found) > 1:
            raise DataError(
                f"{folder} contains several sets of IDX files, such as "
                f"{_first(found[0])} and {_first(found[1])}; give one of these files"
            )
        if found:
            return found[0]
    raise DataError(_missing_file(named[0] if named else folder))


def _sets_in(folder: Path, prefix: str | None) -> list[IdxFiles]:
    """Return the sets of four files in a folder; each set has its own prefix.

    If `prefix` is None, a set with the published names, without a prefix, takes precedence.
    """
    parts = _parts_in(folder)
    prefixes = dict.fromkeys(key[0] for key in parts) if prefix is None else [prefix]
    sets = {}
    for prefix in prefixes:
        for word in _TEST_WORDS:
            keys = [(prefix, part, kind) for part in ("train", word) for kind in "il"]
            if prefix not in sets and all(key in parts for key in keys):
                files = (parts[key] for key in keys)
                sets[prefix] = dict(zip(FILE_NAMES, files, strict=True))
    return [sets[""]] if "" in sets else list(sets.values())


def _parts_in(folder: Path) -> dict[tuple[str, str, str], Path]:
    """Return the IDX files in a folder by prefix, "train" or the word for test, and "i" or "l"."""
    parts: dict[tuple[str, str, str], Path] = {}
    for path in _idx_paths(folder):
        match = _NAME.fullmatch(path.name)
        assert match is not None
        prefix, part, kind = (match[name].lower() for name in ("prefix", "part", "kind"))
        parts.setdefault((prefix, part, kind[0]), path)
    return parts


def _idx_paths(folder: Path) -> list[Path]:
    """Return the IDX files in a folder, those with published names first."""
    paths = []
    for path in _list(folder):
        if is_idx_name(path.name):
            candidates = _list(path) if path.is_dir() else [path]
            paths += [file for file in candidates if is_idx_name(file.name) and file.is_file()]
    published = {name: number for number, name in enumerate(FILE_NAMES)}
    return sorted(paths, key=lambda path: (path.name not in published, len(path.parts), path))


def _missing_file(folder: Path) -> str:
    """Return a message that names a missing file, and the most similar name in the folder."""
    places = [place for place in (folder, folder / _RAW) if place.is_dir()]
    present = {key[1:] for place in places for key in _parts_in(place)}
    present |= {("t10k", kind) for part, kind in present if part == "test"}
    wanted = [(part, kind) for part in ("train", "t10k") for kind in "il"]
    missing = [name for name, key in zip(FILE_NAMES, wanted, strict=True) if key not in present]
    if not missing:
        return f"the IDX files in {folder} belong to different sets; give the four files one prefix"
    names = [path.name for place in places for path in _list(place) if not is_idx_name(path.name)]
    near = _most_similar(missing[0], names)
    hint = f"; the most similar name is {near!r}, rename it if it is this file" if near else ""
    return f"{folder} has no file {missing[0]}, expected the four IDX files, plain or .gz{hint}"


def _most_similar(name: str, names: Iterable[str]) -> str | None:
    by_lower_case = {other.lower(): other for other in names}
    matches = difflib.get_close_matches(name, by_lower_case, n=1)
    return by_lower_case[matches[0]] if matches else None


def _list(folder: Path) -> list[Path]:
    """Return the entries of a folder, sorted; none if it cannot be read."""
    try:
        entries = [path for path, _ in zip(folder.iterdir(), range(_MAX_ENTRIES), strict=False)]
    except OSError:
        return []
    return sorted(entries)


def _first(files: IdxFiles) -> Path:
    return files[FILE_NAMES[0]]


def _normalize(name: str) -> str:
    return re.sub(r"[-_. ]", "", name.lower())
