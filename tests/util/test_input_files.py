"""Input files are regular and limited in size, also after decompression."""

import gzip
import io
import os
import socket
import struct
import sys
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

import mnist_accel as ma
from benchmarks.storage.results import load_results
from mnist_accel.commands import main
from mnist_accel.data.digit_image import read_digit_images
from mnist_accel.data.idx import parse_idx, read_idx_bytes
from mnist_accel.recipes.settings import read_config
from mnist_accel.util.input_files import (
    open_archive,
    open_regular,
    read_at_most,
    read_member,
    read_regular,
    unpack_gzip,
)

READERS = {
    "weights": lambda path: ma.load_weights(path, backend="numpy"),
    "model": lambda path: ma.load_model(path, backend="numpy"),
    "checkpoint": lambda path: ma.load_checkpoint(path, backend="numpy"),
    "settings": lambda path: read_config(str(path)),
    "labels": lambda path: parse_idx(read_idx_bytes(path), name=str(path)),
    "picture": read_digit_images,
    "results": lambda path: load_results([path]),
    "journal": lambda path: load_results([path.rename(path.with_suffix(".journal"))]),
    "data": lambda path: ma.load_dataset("custom", path),
}


@pytest.fixture(params=["pipe", "socket", "device", "folder"])
def special_file(request, tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    match request.param:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path.name)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such special files")
@pytest.mark.parametrize("reader", READERS)
def test_special_files_are_refused_at_once(special_file, reader):
    started = time.monotonic()
    with pytest.raises(ma.MnistAccelError) as caught:
        READERS[reader](special_file)
    assert time.monotonic() - started < 5
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes")
def test_commands_do_not_wait_for_a_named_pipe(tmp_path, capsys):
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    assert main(["evaluate", str(pipe), "--backend", "numpy", "--dataset", "digits"]) == 4
    assert "it is a named pipe, expected a file" in capsys.readouterr().err
    assert main(["train", "--config", str(pipe)]) == 4
    assert "it is a named pipe, expected a file" in capsys.readouterr().err
    assert main(["data", "--dataset", "custom", "--data-dir", str(pipe)]) == 4
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_regular_file_is_read_up_to_the_limit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    assert read_regular(path, max_bytes=1000) == b"x" * 1000
    with pytest.raises(OSError, match="it is larger than the maximum of 999 bytes"):
        read_regular(path, max_bytes=999)
    with pytest.raises(OSError, match="null"):
        open_regular("a\0b")


def test_stream_is_read_without_allocating_the_limit():
    tracemalloc.start()
    try:
        assert read_at_most(io.BytesIO(b"abc"), 2**40) == b"abc"
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def test_gzip_file_is_unpacked_up_to_the_limit():
    packed = gzip.compress(bytes(10**6))
    assert unpack_gzip(packed, max_bytes=10**7, name="f") == bytes(10**6)
    assert unpack_gzip(packed, max_bytes=100, name="f") == bytes(100)
    assert unpack_gzip(packed + bytes(512), max_bytes=10**7, name="f") == bytes(10**6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "ends too early", id="empty"),
        pytest.param(b"\x1f\x8b", "ends too early", id="first two bytes"),
        pytest.param(gzip.compress(b"abc")[:-1], "ends too early", id="last byte missing"),
        pytest.param(gzip.compress(b"abc")[:-1] + b"\xff", "incorrect length", id="wrong length"),
        pytest.param(gzip.compress(b"abc") * 2, "other data after its end", id="two streams"),
        pytest.param(zlib.compress(b"abc"), "incorrect header", id="zlib"),
    ],
)
def test_corrupt_gzip_file_is_refused(data, message):
    with pytest.raises(ma.DataError, match=f"f is a corrupt gzip file .*{message}"):
        unpack_gzip(data, max_bytes=100, name="f")


@pytest.mark.parametrize("reader", ["labels", "results"])
def test_gzip_bomb_is_refused_with_little_memory(tmp_path, reader):
    header = struct.pack(">2I", 0x801, 100) if reader == "labels" else b"["
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(header + b"1," * 10**8, 6))
    tracemalloc.start()
    try:
        with pytest.raises(ma.MnistAccelError):
            READERS[reader](path)
        assert tracemalloc.get_traced_memory()[1] < 2**27
    finally:
        tracemalloc.stop()


def archive_of(files, *, method=zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_member_of_an_archive_is_unpacked_up_to_the_limit():
    archive = open_archive(archive_of({"a.npy": bytes(10**6)}))
    assert read_member(archive, "a.npy", max_bytes=10**7) == bytes(10**6)
    assert read_member(archive, "a.npy", max_bytes=10) == bytes(10)
    with pytest.raises(ValueError, match=r"no item named 'b.npy'"):
        read_member(archive, "b.npy", max_bytes=10)


def test_archive_with_another_compression_is_refused():
    archive = open_archive(archive_of({"a": b"x" * 100}, method=zipfile.ZIP_LZMA))
    with pytest.raises(ValueError, match="not compressed with deflate"):
        read_member(archive, "a", max_bytes=10)


def test_archive_with_many_members_is_refused():
    data = archive_of({f"{number}.npy": b"" for number in range(2000)})
    with pytest.raises(ValueError, match="too many members"):
        open_archive(data)


@pytest.mark.parametrize(
    "data", [b"", b"PK\x05\x06", b"PK\x06\x07" + bytes(16) + b"PK\x05\x06" * 6]
)
def test_file_without_a_list_of_members_is_refused(data):
    with pytest.raises(ValueError, match="no list of members"):
        open_archive(data)


def test_archives_of_numpy_are_read():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{f"W{number}": np.zeros(3) for number in range(500)})
    assert len(open_archive(buffer.getvalue()).namelist()) == 500
