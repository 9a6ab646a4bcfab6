"""A published data set that is small enough for tests, and its files in folders."""

import gzip
import hashlib
from pathlib import Path

import numpy as np

from mnist_accel.data.idx import format_idx
from mnist_accel.data.sources.digests import FILE_NAMES, PublishedSet


def make_set(name: str, train: int, test: int) -> tuple[PublishedSet, dict[str, bytes]]:
    """Return a data set with `train` and `test` random images, and its files by name."""
    rng = np.random.default_rng(train)
    arrays = []
    for count in (train, test):
        arrays.append(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        arrays.append(rng.integers(0, 10, count, dtype=np.uint8))
    files = {file: format_idx(array) for file, array in zip(FILE_NAMES, arrays, strict=True)}
    table = {file: (len(data), hashlib.sha256(data).hexdigest()) for file, data in files.items()}
    return PublishedSet(name, table), files


TINY, FILES = make_set("mnist", 5, 3)
TRAIN_IMAGES = FILE_NAMES[0]


def fill(folder: Path, files: dict[str, bytes] = FILES, *, compressed: bool = False) -> Path:
    """Write files to a folder, plain or as `.gz`, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)
    return folder


def corrupt(path: Path) -> None:
    """Flip the last bit of a file."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
