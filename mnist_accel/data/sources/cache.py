"""The user's cache of downloaded data sets."""

import warnings
from pathlib import Path

from mnist_accel.data.sources.digests import PublishedSet, VerifiedFiles
from mnist_accel.data.sources.folders import ENVIRONMENT_VARIABLE, read_folder
from mnist_accel.errors import DataError
from mnist_accel.util.files import cache_folder, write_atomically


class DataCache:
    """A cache folder with one subfolder per data set.

    The full SHA-256 of the files is verified at each read. This takes 37 ms for the 55 MB of MNIST,
    so remembering which files were verified would not be worth its complexity.
    """

    name = "cache"

    def __init__(self, root: Path | None = None) -> None:
        """Use `root`, by default the user's cache folder."""
        self._root = root

    def folder(self, dataset: str) -> Path:
        """Return the folder for the files of `dataset`."""
        return cache_folder(dataset) if self._root is None else self._root / dataset

    def read(self, published: PublishedSet) -> tuple[VerifiedFiles, str]:
        """Return the files and their origin; see `fetch.Source`."""
        folder = self.folder(published.name)
        if not folder.is_dir():
            raise DataError(f"{folder} does not exist yet")
        try:
            return read_folder(folder, published)[0], f"cache {folder}"
        except DataError as error:
            warnings.warn(
                f"the cached data set cannot be used and is fetched again: {error}", stacklevel=2
            )
            raise

    def write(self, published: PublishedSet, files: VerifiedFiles) -> None:
        """Store the files. A failure is only a warning."""
        folder = self.folder(published.name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, data in files.items():
                write_atomically(folder / name, data)
        except OSError as error:
            warnings.warn(
                f"cannot cache the data set in {folder} ({error.strerror or error}), so each run "
                f"fetches it again; free disk space or make the folder writable, or set "
                f"{ENVIRONMENT_VARIABLE}",
                stacklevel=2,
            )
