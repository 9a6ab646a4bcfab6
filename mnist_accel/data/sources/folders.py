"""Sources on this machine: the user's own folder, the cache, and what other libraries left."""

import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from mnist_accel.data.idx import IMAGES_MAGIC, LABELS_MAGIC, read_idx_bytes
from mnist_accel.data.sources.digests import FILE_NAMES, PublishedSet, VerifiedFiles, verify
from mnist_accel.errors import DataError
from mnist_accel.util.files import cache_folder, write_atomically

ENVIRONMENT_VARIABLE = "MNIST_ACCEL_DATA"

# The distribution package dataset-fashion-mnist installs its files here.
_SYSTEM_FOLDERS = {"fashion-mnist": (Path("/usr/share/datasets/fashion-mnist"),)}
_TORCHVISION_FOLDERS = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw"}


def user_folder(dataset: str, data_dir: str | Path | None) -> Path | None:
    """Return the folder that the user named for `dataset`, or None if there is none.

    `data_dir` comes before the environment variable `MNIST_ACCEL_DATA`. The files of all data sets
    have the same names, so a subfolder called like the data set is taken where there is one.

    Who names a folder means it: the caller reads that folder alone, and a missing or corrupt file
    in it is an error rather than a reason to look elsewhere.
    """
    named = data_dir if data_dir is not None else os.environ.get(ENVIRONMENT_VARIABLE)
    if not named:
        return None
    folder = Path(named).expanduser()
    return folder / dataset if (folder / dataset).is_dir() else folder


def find_idx_file(folder: Path, name: str) -> Path:
    """Return the path of an IDX file, plain or with `.gz`.

    Raises:
        DataError: the folder has neither.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    missing = f"has no file {name}" if folder.is_dir() else "does not exist"
    raise DataError(f"{folder} {missing}, expected the IDX files, plain or .gz")


def read_folder(folder: Path, published: PublishedSet) -> VerifiedFiles:
    """Return the files of a published set from a folder, verified.

    Raises:
        DataError: a file is missing, corrupt, or not the published one.
    """
    files = {name: read_idx_bytes(find_idx_file(folder, name)) for name in published.files}
    return verify(published, files, origin=str(folder))


class Cache:
    """The user's cache folder.

    What is read is verified by its full SHA-256 each time: 37 ms for the 55 MB of MNIST, measured,
    which is less than a stamp would be worth that must be kept in step with the files.
    """

    name = "cache"

    def __init__(self, root: Path | None = None) -> None:
        self._root = root

    def folder(self, dataset: str) -> Path:
        """Return where the files of `dataset` are kept."""
        return cache_folder(dataset) if self._root is None else self._root / dataset

    def read(self, published: PublishedSet) -> tuple[VerifiedFiles, str]:
        """Return the files and where they were; see `sources.Source`."""
        folder = self.folder(published.name)
        if not folder.is_dir():
            raise DataError(f"{folder} does not exist yet")
        try:
            return read_folder(folder, published), f"cache {folder}"
        except DataError as error:
            warnings.warn(
                f"the cached copy cannot be used and is fetched anew: {error}", stacklevel=2
            )
            raise

    def write(self, published: PublishedSet, files: VerifiedFiles) -> None:
        """Keep the files for the next time; a cache that cannot be written is only a warning."""
        folder = self.folder(published.name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, data in files.items():
                write_atomically(folder / name, data)
        except OSError as error:
            warnings.warn(
                f"the data cannot be cached in {folder} ({error.strerror or error}): it is fetched "
                f"anew each time; make room there or set {ENVIRONMENT_VARIABLE}",
                stacklevel=2,
            )


class Copies:
    """Copies that torchvision, Keras or the operating system left in their usual places."""

    name = "copies of other libraries"

    def __init__(
        self,
        roots: Sequence[Path] | None = None,
        keras: Path | None = None,
        system: Mapping[str, Sequence[Path]] = _SYSTEM_FOLDERS,
    ) -> None:
        """Look elsewhere than usual.

        Args:
            roots: what torchvision's users pass as `root`; by default the working folder, the home
                folder, and a folder `data` in either.
            keras: by default `KERAS_HOME`, or `~/.keras`.
            system: folders of the operating system, by data set.
        """
        self._roots = roots
        self._keras = keras
        self._system = system

    def read(self, published: PublishedSet) -> tuple[VerifiedFiles, str]:
        """Return the files and where they were; see `sources.Source`."""
        failures = []
        for folder in self._folders(published.name):
            try:
                return read_folder(folder, published), f"copy in {folder}"
            except DataError as error:
                failures.append(str(error))
        archive = self._keras_home() / "datasets" / "mnist.npz"
        if published.name == "mnist" and archive.is_file():
            try:
                return _read_keras_archive(archive, published), f"copy in {archive}"
            except DataError as error:
                failures.append(str(error))
        raise DataError("; ".join(failures) or "none found of torchvision, Keras or the system")

    def _folders(self, dataset: str) -> list[Path]:
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
    """Return the files rebuilt from Keras' `mnist.npz`.

    A `.npy` member ends with the same bytes as the IDX file, behind another header. The header
    need not be understood, since the digest decides.
    """
    members = dict(zip(FILE_NAMES, ("x_train", "y_train", "x_test", "y_test"), strict=True))
    files = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name, (size, _) in published.files.items():
                header = _idx_header(name, size)
                count = size - len(header)
                with archive.open(f"{members[name]}.npy") as member:
                    data = member.read(count + 1024)  # no .npy header of such an array is longer
                files[name] = header + data[-count:]
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(f"{path} is not Keras' archive of {published.name} ({error})") from error
    return verify(published, files, origin=str(path))


def _idx_header(name: str, size: int) -> bytes:
    """Return the header of the IDX file of 28×28 images, or of labels, that has `size` bytes."""
    if "images" in name:
        return struct.pack(">4I", IMAGES_MAGIC, (size - 16) // 28**2, 28, 28)
    return struct.pack(">2I", LABELS_MAGIC, size - 8)
