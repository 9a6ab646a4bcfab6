"""Public HTTPS mirrors of the data sets, read with pooch."""

import io
import queue
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from mnist_accel.data.idx import unpack_idx
from mnist_accel.data.sources.digests import PublishedSet, VerifiedFiles, verify
from mnist_accel.errors import DataError
from mnist_accel.util.text import excerpt

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

# Limits for a whole file. The timeouts above do not bound the name lookup; they apply to each
# address of a host and to each packet. The first file is the smallest (4.5 kB).
_FIRST_FILE_S = 5.0
_CONNECTION_S = 30.0
_MIN_SPEED = 100_000  # unpacked bytes per second

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
        from mnist_accel.console.activity import activity  # imports rich

        host = urlsplit(address).hostname
        compressed = {}
        smallest_first = sorted(published.files.items(), key=lambda item: item[1][0])
        for index, (name, (size, _)) in enumerate(smallest_first):
            url, body = f"{address}{name}.gz", _LimitedBuffer(size + _GZIP_OVERHEAD)
            with activity(f"downloading {name}.gz from {host}", sys.stderr, detail=body.progress):
                seconds = self._first_file_s if index == 0 else _CONNECTION_S + size / _MIN_SPEED
                _download_within(seconds, url, body)
            compressed[name] = body.getvalue()
        files = {name: unpack_idx(data, name=f"{name}.gz") for name, data in compressed.items()}
        return verify(published, files, origin=address)


def _download_within(seconds: float, url: str, body: "_LimitedBuffer") -> None:
    """Download the file at `url`, or raise `DataError` after `seconds`."""
    outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            _download(url, body)
            outcome.put(None)
        except Exception as error:
            outcome.put(error)  # the caller's thread raises it

    # A daemon thread, so that a name lookup that hangs cannot keep the process alive.
    threading.Thread(target=work, daemon=True).start()
    try:
        result = outcome.get(timeout=seconds)
    except queue.Empty:
        body.stop()
        raise DataError(f"no complete answer within {seconds:.3g} s") from None
    if result is not None:
        raise result


def _download(url: str, body: "_LimitedBuffer") -> None:
    """Write the file at `url` to `body`."""
    import pooch

    responses: list[Any] = []
    download = pooch.HTTPDownloader(
        timeout=(_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S),
        hooks={"response": lambda response, **_: responses.append(response)},
    )
    try:
        download(url, body, None)
    except (OSError, ValueError) as error:  # the errors of pooch's HTTP library
        raise DataError(_root_cause(error)) from error
    finally:
        for response in responses:  # pooch does not close the connection if a download fails
            response.close()


def _root_cause(error: BaseException) -> str:
    """Return the message of the first error in a chain, which is the shortest and most specific."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return excerpt(error) or type(error).__name__


class _LimitedBuffer(io.BytesIO):
    """A buffer that raises `DataError` if more than `max_bytes` are written to it."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._is_stopped = False

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > self._max_bytes:
            raise DataError(f"the server sends more than {self._max_bytes} bytes for this file")
        if self._is_stopped:
            raise DataError("the download was given up")
        return super().write(data)

    def stop(self) -> None:
        """Make the next `write` raise an error, which ends the download."""
        self._is_stopped = True

    def progress(self) -> str:
        """Return the size of the content so far."""
        return f"{self.tell() / 1e6:.1f} MB"
