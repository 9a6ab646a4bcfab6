"""Reads a data set from a path of the user: a folder with four IDX files, or Keras' archive."""

import os
from pathlib import Path

from mnist_accel.data.idx import read_idx_bytes
from mnist_accel.data.sources.digests import FILE_NAMES, PublishedSet, VerifiedFiles, verify
from mnist_accel.data.sources.idx_names import find_idx_files, is_idx_name, prefix_of
from mnist_accel.data.sources.keras_archive import (
    ARCHIVE_NAME,
    is_archive,
    read_archive,
    read_published_archive,
)
from mnist_accel.errors import DataError

ENVIRONMENT_VARIABLE = "MNIST_ACCEL_DATA"


def user_path(data_dir: str | Path | None) -> Path | None:
    """Return the folder or file that the user gave, or None if the user gave none.

    `data_dir` takes precedence over the environment variable `MNIST_ACCEL_DATA`. If the user gives
    one of them, callers must read nothing else: a missing or corrupt file is an error, not a reason
    to try another source.

    Raises:
        DataError: the path begins with the home folder of an unknown user.
    """
    given = data_dir if data_dir is not None else os.environ.get(ENVIRONMENT_VARIABLE)
    if not given:
        return None
    try:
        return Path(given).expanduser()
    except RuntimeError as error:  # no such user
        raise DataError(f"the home folder in {given} cannot be found; give another path") from error


def read_folder(path: Path, published: PublishedSet) -> tuple[VerifiedFiles, str]:
    """Return the verified files of a published data set, and the folder or archive with them.

    Args:
        path: a folder with the IDX files or with Keras' archive, one of the IDX files, or the
            archive.
        published: the data set.

    Raises:
        DataError: a file is missing, corrupt, or differs from the published one.
        OSError: `path` cannot be read.
    """
    archive, files = _find(path, published.name)
    if archive is not None:
        return read_published_archive(archive, published), f"archive {archive}"
    folder = _common_folder(files)
    contents = {name: read_idx_bytes(files[name]) for name in published.files}
    return verify(published, contents, origin=str(folder)), f"folder {folder}"


def read_own_files(path: Path) -> tuple[dict[str, bytes], dict[str, str], str]:
    """Return the user's own IDX files by their published names, without comparing digests.

    Args:
        path: as for `read_folder`.

    Returns:
        The decompressed files, the path of each for messages, and the folder or archive with them.

    Raises:
        DataError: a file is missing or corrupt.
        OSError: `path` cannot be read.
    """
    archive, files = _find(path, "custom")
    if archive is not None:
        names = {name: f"{name} from {archive}" for name in FILE_NAMES}
        return read_archive(archive), names, f"archive {archive}"
    contents = {name: read_idx_bytes(file) for name, file in files.items()}
    names = {name: str(file) for name, file in files.items()}
    return contents, names, f"folder {_common_folder(files)}"


def _find(path: Path, dataset: str) -> tuple[Path | None, dict[str, Path]]:
    """Return the archive if `path` leads to one, and otherwise the four IDX files."""
    if is_archive(path):
        return path, {}
    prefix = None
    if path.is_file():
        prefix = prefix_of(path.name)
        if not is_idx_name(path.name):
            raise DataError(
                f"{path} is a file, but neither an IDX file nor Keras' {ARCHIVE_NAME}; give the "
                "folder with the four IDX files"
            )
        own_folder = is_idx_name(path.parent.name)  # some copies keep each file in a folder
        path = path.parent.parent if own_folder else path.parent
    try:
        return None, find_idx_files(path, dataset, prefix=prefix)
    except DataError:
        if is_archive(path / ARCHIVE_NAME):
            return path / ARCHIVE_NAME, {}
        raise


def _common_folder(files: dict[str, Path]) -> Path:
    """Return the folder that contains the files, each possibly in a folder of its own."""
    return Path(os.path.commonpath([file.parent for file in files.values()]))
