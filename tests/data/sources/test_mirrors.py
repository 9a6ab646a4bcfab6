"""HTTPS mirrors, on the loopback interface only."""

import contextlib
import gzip
import http.server
import io
import re
import socket
import sys
import threading
import time

import pytest

from mnist_accel.console import activity
from mnist_accel.data.sources import mirrors
from mnist_accel.data.sources.mirrors import Mirrors
from mnist_accel.errors import DataError
from tests.support.published_files import FILES, TINY, TRAIN_IMAGES


@contextlib.contextmanager
def serve(contents, before_answer=lambda: None):
    """Serve `contents` by file name, and 404 for other names; yield the URL and the request log."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            before_answer()
            body = contents.get(self.path.rpartition("/")[2])
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args):
            pass

    requests: list[str] = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/mnist/", requests
        finally:
            server.shutdown()
            thread.join()


COMPRESSED = {f"{name}.gz": gzip.compress(data) for name, data in FILES.items()}


def test_mirror_delivers_the_four_files():
    with serve(COMPRESSED) as (address, requests):
        assert Mirrors({"mnist": [address]}).read(TINY) == (FILES, "mirror 127.0.0.1")
    assert sorted(requests) == sorted(f"/mnist/{name}" for name in COMPRESSED)


def test_second_mirror_is_used_if_the_first_fails():
    with serve({}) as (empty, requests), serve(COMPRESSED) as (full, _):
        assert Mirrors({"mnist": [empty, full]}).read(TINY)[0] == FILES
    assert len(requests) == 1  # no further requests to a mirror after a failure


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "404"),
        (b"<html>log in to the wireless network</html>", "is not an IDX file"),
        (gzip.compress(FILES[TRAIN_IMAGES], mtime=0)[:-9], "corrupt gzip file"),
        (
            gzip.compress(FILES[TRAIN_IMAGES][:-1] + b"?", mtime=0),
            "is not the file of mnist: found ",
        ),
        (bytes(40_000), "sends more than 20320 bytes"),
    ],
)
def test_invalid_answers_of_a_mirror_are_rejected(body, message):
    contents = {**COMPRESSED, f"{TRAIN_IMAGES}.gz": body}
    with serve(contents) as (address, _), pytest.raises(DataError, match=message):
        Mirrors({"mnist": [address]}).read(TINY)


def test_mirror_that_refuses_or_never_answers_is_given_up_quickly():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections, sends nothing
        silent_port = silent.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as closed:
            closed_port = closed.getsockname()[1]
        addresses = [f"http://127.0.0.1:{port}/" for port in (closed_port, silent_port)]
        started = time.monotonic()
        with pytest.raises(
            DataError, match=r"Connection refused; .*no complete answer within 0\.3"
        ):
            Mirrors({"mnist": addresses}, first_file_s=0.3).read(TINY)
        assert time.monotonic() - started < 3


class WatchedText(io.StringIO):
    """A stream that sets an event when text is written to it."""

    def __init__(self):
        super().__init__()
        self.written = threading.Event()

    def write(self, text):
        self.written.set()
        return super().write(text)


def test_a_slow_download_shows_its_progress(monkeypatch):
    stderr = WatchedText()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(activity, "DELAY_SECONDS", 0.01)
    with serve(COMPRESSED, before_answer=lambda: stderr.written.wait(30)) as (address, _):
        assert Mirrors({"mnist": [address]}, first_file_s=30).read(TINY)[0] == FILES
    assert re.match(r"downloading .*\.gz from 127\.0\.0\.1: 0 s; 0\.0 MB\n", stderr.getvalue())
    assert re.search(r"\.gz from 127\.0\.0\.1: finished after \d", stderr.getvalue())


def test_a_file_that_arrives_slowly_is_given_up(monkeypatch):
    """Each packet arrives within the timeout for reading, but the whole file does not."""
    monkeypatch.setattr(mirrors, "_CONNECTION_S", 0.5)
    monkeypatch.setattr(mirrors, "_MIN_SPEED", 10**9)
    done = threading.Event()

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = COMPRESSED[self.path.removeprefix("/")]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if "labels" in self.path:
                self.wfile.write(body)
                return
            while not done.wait(0.05):
                self.wfile.write(b"x")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        started = time.monotonic()
        with pytest.raises(DataError, match=r"no complete answer within 0\.5 s"):
            Mirrors({"mnist": [address]}).read(TINY)
        assert time.monotonic() - started < 10
        done.set()
        server.shutdown()


def test_the_reason_of_a_server_is_shown_without_control_characters():
    class Hostile(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.wfile.write(b"HTTP/1.1 500 \x1b[2J\x07 " + b"x" * 60_000 + b"\r\n\r\n")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(DataError) as caught:
            Mirrors({"mnist": [f"http://127.0.0.1:{server.server_port}/"]}).read(TINY)
        server.shutdown()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
