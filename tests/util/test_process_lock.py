"""A lock is held by one process at a time."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mnist_accel.errors import DataError, UsageError
from mnist_accel.util import process_lock as lock
from mnist_accel.util.process_lock import process_lock

TRAINING = "training in a folder"
ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from mnist_accel.util.process_lock import process_lock
with process_lock(Path(sys.argv[1]), "training"):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.lock"


@pytest.fixture
def holder(path: Path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_second_process_is_refused_and_told_who_holds_the_lock(path, holder):
    message = rf"process {holder.pid} on .*, since 20\d\d-.*; wait until it ends"
    with pytest.raises(UsageError, match=message), process_lock(path, TRAINING):
        pass
    assert path.exists()


@pytest.mark.posix
@pytest.mark.timeout(20)
def test_named_pipe_in_place_of_the_lock_is_refused(path):
    os.mkfifo(path)
    with pytest.raises(DataError, match="named pipe"), process_lock(path, TRAINING):
        pass
    assert path.is_fifo()


@pytest.mark.posix
def test_link_in_place_of_the_lock_is_not_followed(tmp_path, path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    path.symlink_to(victim)
    with pytest.raises(DataError, match="symbolic link"), process_lock(path, TRAINING):
        pass
    assert victim.read_bytes() == b"untouched"


def test_lock_of_a_killed_process_is_free_at_once(path, holder):
    holder.kill()
    holder.wait()
    with process_lock(path, TRAINING):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_lock_is_taken_again_after_its_release_and_after_an_error(tmp_path, path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), process_lock(path, TRAINING):
            raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_two_locks_of_one_process_exclude_each_other(path):
    with (
        process_lock(path, TRAINING),
        pytest.raises(UsageError, match=f"process {os.getpid()} on"),
        process_lock(path, TRAINING),
    ):
        pass


@pytest.mark.parametrize("locks_work", [True, False])
def test_heartbeat_decides_about_a_holder_on_another_machine(path, monkeypatch, locks_work):
    """Some network file systems have no locks, or only locks within one machine."""
    if not locks_work:
        monkeypatch.setattr(lock, "_lock", lambda descriptor: None)
    path.write_text(json.dumps({"host": "far", "pid": 7, "started": "today", "boot": "other"}))
    with (
        pytest.raises(UsageError, match="process 7 on far, since today"),
        process_lock(path, TRAINING),
    ):
        pass
    old = time.time() - lock.STALE_S - 1
    os.utime(path, (old, old))
    with process_lock(path, TRAINING):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_holder_renews_the_time_of_the_file(path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.01)
    with process_lock(path, TRAINING):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 30
        while path.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"pid": [1]}', b"[" * 4096])
def test_unreadable_lock_file_of_a_dead_process_is_replaced(path, content):
    path.write_bytes(content)
    os.utime(path, (0, 0))
    with process_lock(path, TRAINING):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_file_system_without_locks_uses_the_time_of_the_file(tmp_path, path, monkeypatch):
    monkeypatch.setattr(lock, "_lock", lambda descriptor: None)
    refused = pytest.raises(UsageError, match="another process is training in a folder: process")
    with process_lock(path, TRAINING), refused, process_lock(path, TRAINING):
        pass
    assert list(tmp_path.iterdir()) == []
