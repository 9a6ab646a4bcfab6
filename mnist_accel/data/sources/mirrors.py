"""Public HTTPS mirrors of the data sets, read with pooch."""

import io
import queue
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mnist_accel.data.idx import unpack_idx
from mnist_accel.data.sources.digests import PublishedSet, VerifiedFiles, verify
from mnist_accel.errors import DataError
from mnist_accel.util.text import one_line

if TYPE_CHECKING:
    from rich.progress import Progress

_MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion-mnist": (
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
}

_CONNECT_TIMEOUT_S = 4.0
_READ_TIMEOUT_S = 30.0

# Limit for the first file, the smallest (4.5 kB). The timeouts above do not bound the name lookup,
# and the connect timeout applies to each address of a host.
_FIRST_FILE_S = 5.0

# gzip adds at most a header and 5 bytes per 32 kB to data that it cannot compress.
_GZIP_OVERHEAD = 2**14


class Mirrors:
    """HTTPS servers that offer the four files compressed with gzip."""

    name = "HTTPS mirrors"

    def __init__(
        self,
        addresses: Mapping[str, Sequence[str]] = _MIRRORS,
        *,
        first_file_s: float = _FIRST_FILE_S,
    ) -> None:
        """Set the servers.

        Args:
            addresses: URLs of folders by data set, each with a trailing slash.
            first_file_s: seconds after which a mirror is given up if its first file is incomplete.
        """
        self._addresses = addresses
        self._first_file_s = first_file_s

    def read(self, published: PublishedSet) -> tuple[VerifiedFiles, str]:
        """Return the files and their origin; see `fetch.Source`."""
        failures = []
        for address in self._addresses.get(published.name, ()):
            host = urlsplit(address).hostname
            try:
                return self._read_mirror(address, published), f"mirror {host}"
            except DataError as error:
                failures.append(f"{host}: {error}")
        raise DataError("; ".join(failures) or f"no mirror of {published.name} is known")

    def _read_mirror(self, address: str, published: PublishedSet) -> VerifiedFiles:
        compressed = {}
        smallest_first = sorted(published.files.items(), key=lambda item: item[1][0])
        for index, (name, (size, _)) in enumerate(smallest_first):
            url = f"{address}{name}.gz"
            if index == 0:
                compressed[name] = _download_within(self._first_file_s, url, size)
            else:
                with _progress_bar(f"{name}.gz") as bar:
                    compressed[name] = _download(url, size, bar)
        files = {name: unpack_idx(data, name=f"{name}.gz") for name, data in compressed.items()}
        return verify(published, files, origin=address)


def _download_within(seconds: float, url: str, unpacked_bytes: int) -> bytes:
    """Return the gzip file at `url`, or raise `DataError` after `seconds`."""
    outcome: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put(_download(url, unpacked_bytes))
        except Exception as error:
            outcome.put(error)  # the caller's thread raises it

    # A daemon thread, so that a name lookup that hangs cannot keep the process alive.
    threading.Thread(target=work, daemon=True).start()
    try:
        result = outcome.get(timeout=seconds)
    except queue.Empty:
        raise DataError(f"no answer within {seconds:g} s") from None
    if isinstance(result, Exception):
        raise result
    return result


def _download(url: str, unpacked_bytes: int, bar: "_ProgressBar | None" = None) -> bytes:
    """Return the gzip file at `url`, which unpacks to `unpacked_bytes`."""
    import pooch

    body = _LimitedBuffer(unpacked_bytes + _GZIP_OVERHEAD)
    responses: list[Any] = []
    download = pooch.HTTPDownloader(
        timeout=(_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S),
        progressbar=bar or False,
        hooks={"response": lambda response, **_: responses.append(response)},
    )
    try:
        download(url, body, None)
    except (OSError, ValueError) as error:  # the errors of pooch's HTTP library
        raise DataError(_root_cause(error)) from error
    finally:
        for response in responses:  # pooch does not close the connection if a download fails
            response.close()
    return body.getvalue()


def _root_cause(error: BaseException) -> str:
    """Return the message of the first error in a chain, which is the shortest and most specific."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return one_line(error) or type(error).__name__


class _LimitedBuffer(io.BytesIO):
    """A buffer that raises `DataError` if more than `max_bytes` are written to it."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > self._max_bytes:
            raise DataError(f"the server sends more than {self._max_bytes} bytes for this file")
        return super().write(data)


@contextmanager
def _progress_bar(label: str) -> Iterator["_ProgressBar"]:
    """Show a progress bar on stderr while the block runs, if stderr is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with progress if sys.stderr.isatty() else nullcontext():
        yield _ProgressBar(progress, label)


class _ProgressBar:
    """A rich progress bar with the interface that pooch expects.

    Attributes:
        total: size of the download in bytes; pooch sets it.
    """

    def __init__(self, progress: "Progress", label: str) -> None:
        self.total = 0
        self._progress = progress
        self._task = progress.add_task(label, total=None)

    def update(self, size: int) -> None:
        """Add `size` bytes."""
        self._progress.update(self._task, advance=size, total=self.total or None)

    def reset(self) -> None:
        """Start again from 0 bytes."""
        self._progress.reset(self._task)

    def close(self) -> None:
        """Do nothing: `_progress_bar` stops the bar, also after an error."""
