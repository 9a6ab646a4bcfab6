"""The public HTTPS mirrors that the field uses, through pooch."""

import io
import queue
import sys
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from mnist_accel.data.idx import unpack_idx
from mnist_accel.data.sources.digests import PublishedSet, VerifiedFiles, verify
from mnist_accel.errors import DataError
from mnist_accel.util.text import one_line

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

_CONNECT_S = 4.0
_SILENCE_S = 30.0

# A host name with many addresses multiplies the time-out for connecting, and no time-out covers the
# look-up of the name. This one covers the first file, the smallest, of 4.5 kB.
_FIRST_FILE_S = 5.0

# What gzip may add to data that it cannot shrink; 5 bytes each 32 kB at most, and a header.
_GZIP_OVERHEAD = 2**14


class Mirrors:
    """HTTPS servers with the four files, compressed with gzip."""

    name = "HTTPS mirrors"

    def __init__(
        self,
        addresses: Mapping[str, Sequence[str]] = _MIRRORS,
        *,
        first_file_s: float = _FIRST_FILE_S,
    ) -> None:
        """Take the servers' folders, each ending in a slash, by data set."""
        self._addresses = addresses
        self._first_file_s = first_file_s

    def read(self, published: PublishedSet) -> tuple[VerifiedFiles, str]:
        """Return the files and where they were; see `sources.Source`."""
        failures = []
        for address in self._addresses.get(published.name, ()):
            host = urlsplit(address).hostname
            try:
                return self._read_mirror(address, published), f"mirror {host}"
            except DataError as error:
                failures.append(f"{host}: {error}")
        raise DataError("; ".join(failures) or f"none known for {published.name}")

    def _read_mirror(self, address: str, published: PublishedSet) -> VerifiedFiles:
        compressed = {}
        smallest_first = sorted(published.files.items(), key=lambda item: item[1][0])
        for index, (name, (size, _)) in enumerate(smallest_first):
            url = f"{address}{name}.gz"
            if index == 0:
                compressed[name] = _within(self._first_file_s, url, size)
            else:
                with _ProgressBar(f"{name}.gz") as bar:
                    compressed[name] = _download(url, size, bar if bar.shown else None)
        files = {
            name: unpack_idx(io.BytesIO(data), name=f"{name}.gz")
            for name, data in compressed.items()
        }
        return verify(published, files, origin=address)


def _within(seconds: float, url: str, unpacked_bytes: int) -> bytes:
    """Download a small file, and give up after `seconds` whatever the network does."""
    outcome: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put(_download(url, unpacked_bytes))
        except Exception as error:
            outcome.put(error)  # raised again below, in the thread that waits

    # A daemon: a look-up that hangs must not keep the program from ending either.
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

    body = _Body(unpacked_bytes + _GZIP_OVERHEAD)
    responses: list[Any] = []
    download = pooch.HTTPDownloader(
        timeout=(_CONNECT_S, _SILENCE_S),
        progressbar=bar or False,
        hooks={"response": lambda response, **_: responses.append(response)},
    )
    try:
        download(url, body, None)
    except (OSError, ValueError) as error:  # what pooch's HTTP library raises
        raise DataError(_root_cause(error)) from error
    finally:
        for response in responses:  # pooch leaves the connection of a failed download open
            response.close()
    return body.getvalue()


def _root_cause(error: BaseException) -> str:
    """Return the first cause of an error, which says most in fewest words."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return one_line(error) or type(error).__name__


class _Body(io.BytesIO):
    """What a server sends, up to a limit."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > self._max_bytes:
            raise DataError(f"it sends more than {self._max_bytes} bytes for this file")
        return super().write(data)


class _ProgressBar:
    """The progress bar that pooch asks for: on stderr, and only if that is a terminal."""

    def __init__(self, label: str) -> None:
        self.shown = sys.stderr.isatty()
        self.total = 0
        if self.shown:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._progress.add_task(label, total=None)

    def __enter__(self) -> Self:
        if self.shown:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.shown:
            self._progress.stop()

    def update(self, count: int) -> None:
        """Add `count` bytes."""
        self._progress.update(self._task, advance=count, total=self.total or None)

    def reset(self) -> None:
        """Start again from no bytes."""
        self._progress.reset(self._task)

    def close(self) -> None:
        """Do nothing: leaving the context stops the bar, after an error too."""
