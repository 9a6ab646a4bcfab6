"""Folders with the four IDX files of a data set."""

import os
from pathlib import Path

from mnist_accel.data.idx import read_idx_bytes
from mnist_accel.data.sources.digests import PublishedSet, VerifiedFiles, verify
from mnist_accel.errors import DataError

ENVIRONMENT_VARIABLE = "MNIST_ACCEL_DATA"


def user_folder(dataset: str, data_dir: str | Path | None) -> Path | None:
    """Return the folder that the user gave for `dataset`, or None if the user gave none.

    `data_dir` takes precedence over the environment variable `MNIST_ACCEL_DATA`. All data sets use
    the same file names, so a subfolder with the name of the data set is preferred if it exists.

    If the user gives a folder, callers must read only that folder: a missing or corrupt file in it
    is an error, not a reason to try another source.

    Raises:
        DataError: the path begins with the home folder of an unknown user.
    """
    given = data_dir if data_dir is not None else os.environ.get(ENVIRONMENT_VARIABLE)
    if not given:
        return None
    try:
        folder = Path(given).expanduser()
    except RuntimeError as error:  # no such user
        raise DataError(f"the home folder in {given} cannot be found; give another path") from error
    return folder / dataset if (folder / dataset).is_dir() else folder


def find_idx_file(folder: Path, name: str) -> Path:
    """Return the path of an IDX file, either `name` or `name.gz`.

    Raises:
        DataError: the folder contains neither.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    missing = f"has no file {name}" if folder.is_dir() else "does not exist"
    raise DataError(f"{folder} {missing}, expected the four IDX files, plain or .gz")


def read_folder(folder: Path, published: PublishedSet) -> VerifiedFiles:
    """Return the verified files of a published data set from a folder.

    Raises:
        DataError: a file is missing, corrupt, or differs from the published one.
    """
    files = {name: read_idx_bytes(find_idx_file(folder, name)) for name in published.files}
    return verify(published, files, origin=str(folder))
