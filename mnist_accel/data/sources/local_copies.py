"""Copies of the data sets that other software left on this machine."""

import os
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mnist_accel.data.idx import IMAGES_MAGIC, LABELS_MAGIC
from mnist_accel.data.sources.digests import FILE_NAMES, PublishedSet, VerifiedFiles, verify
from mnist_accel.data.sources.folders import read_folder
from mnist_accel.errors import DataError
from mnist_accel.util.text import one_line

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
                return read_folder(folder, published), f"copy in {folder}"
            except (DataError, OSError) as error:
                failures.append(str(error))
        archive = self._keras_home() / "datasets" / "mnist.npz"
        if published.name == "mnist" and archive.is_file():
            try:
                return _read_keras_archive(archive, published), f"copy in {archive}"
            except DataError as error:
                failures.append(str(error))
        raise DataError("; ".join(failures) or "none found of torchvision, Keras or the system")

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


def _read_keras_archive(path: Path, published: PublishedSet) -> VerifiedFiles:
    """Return the IDX files rebuilt from Keras' `mnist.npz`.

    The data in a `.npy` member equal those in the IDX file; only the headers differ. The `.npy`
    header is not parsed, because the digest detects any mismatch.
    """
    members = dict(zip(FILE_NAMES, ("x_train", "y_train", "x_test", "y_test"), strict=True))
    files = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name, (size, _) in published.files.items():
                header = _idx_header(name, size)
                data_size = size - len(header)
                with archive.open(f"{members[name]}.npy") as member:
                    # The .npy header of such an array has at most 1024 bytes.
                    data = member.read(data_size + 1024)
                files[name] = header + data[-data_size:]
    except Exception as error:  # a corrupt archive makes zipfile raise errors of many kinds
        raise DataError(
            f"{path} is not Keras' archive of {published.name} ({one_line(error)})"
        ) from error
    return verify(published, files, origin=str(path))


def _idx_header(name: str, size: int) -> bytes:
    """Return the header of an IDX file of `size` bytes with 28×28 images or with labels."""
    if "images" in name:
        return struct.pack(">4I", IMAGES_MAGIC, (size - 16) // 28**2, 28, 28)
    return struct.pack(">2I", LABELS_MAGIC, size - 8)
