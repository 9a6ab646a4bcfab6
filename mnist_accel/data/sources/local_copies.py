"""Copies of the data sets that other software left on this machine."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mnist_accel.data.sources.digests import PublishedSet, VerifiedFiles
from mnist_accel.data.sources.folders import read_folder
from mnist_accel.data.sources.keras_archive import ARCHIVE_NAME, read_published_archive
from mnist_accel.errors import DataError

# The Linux package dataset-fashion-mnist installs its files here.
_SYSTEM_FOLDERS = {"fashion-mnist": (Path("/usr/share/datasets/fashion-mnist"),)}
_TORCHVISION_FOLDERS = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw"}


class LocalCopies:
    """Copies that torchvision, Keras or the operating system store in their usual folders."""

    name = "copies of other libraries"

    def __init__(
        self,
        roots: Sequence[Path] | None = None,
        keras: Path | None = None,
        system: Mapping[str, Sequence[Path]] = _SYSTEM_FOLDERS,
    ) -> None:
        """Set the folders to search.

        Args:
            roots: candidates for the argument `root` of torchvision's data sets; by default the
                working folder, the home folder, and the subfolder `data` of each.
            keras: Keras' home; by default `KERAS_HOME`, or `~/.keras`.
            system: folders of the operating system by data set.
        """
        self._roots = roots
        self._keras = keras
        self._system = system

    def read(self, published: PublishedSet) -> tuple[VerifiedFiles, str]:
        """Return the files and their origin; see `fetch.Source`."""
        failures = []
        for folder in self._folders(published.name):
            try:
                return read_folder(folder, published)[0], f"copy in {folder}"
            except (DataError, OSError) as error:
                failures.append(str(error))
        archive = self._keras_home() / "datasets" / ARCHIVE_NAME
        if published.name == "mnist" and archive.is_file():
            try:
                return read_published_archive(archive, published), f"copy in {archive}"
            except DataError as error:
                failures.append(str(error))
        raise DataError("; ".join(failures) or "found no copy of torchvision, Keras or the system")

    def _folders(self, dataset: str) -> list[Path]:
        """Return the existing folders that may contain the four IDX files."""
        home = Path.home()
        roots = self._roots or (Path.cwd(), Path.cwd() / "data", home, home / "data")
        candidates = [
            *(root / _TORCHVISION_FOLDERS[dataset] for root in roots),
            self._keras_home() / "datasets" / dataset,
            *self._system.get(dataset, ()),
        ]
        return [folder for folder in candidates if folder.is_dir()]

    def _keras_home(self) -> Path:
        return self._keras or Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
