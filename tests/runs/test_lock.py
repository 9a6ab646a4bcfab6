"""A run folder is written by one process at a time."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mnist_accel.errors import UsageError
from mnist_accel.runs import lock
from mnist_accel.runs.lock import LOCK_NAME, run_lock

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from mnist_accel.runs.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock of the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_second_process_is_refused_and_told_who_holds_the_lock(tmp_path, holder):
    message = rf"process {holder.pid} on .*, since 20\d\d-.*; wait until it ends"
    with pytest.raises(UsageError, match=message), run_lock(tmp_path):
        pass
    assert (tmp_path / LOCK_NAME).exists()


def test_lock_of_a_killed_process_is_free_at_once(tmp_path, holder):
    holder.kill()
    holder.wait()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK_NAME).exists()


def test_lock_is_taken_again_after_its_release_and_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), run_lock(tmp_path):
            raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_two_locks_of_one_process_exclude_each_other(tmp_path):
    with (
        run_lock(tmp_path),
        pytest.raises(UsageError, match=f"process {os.getpid()} on"),
        run_lock(tmp_path),
    ):
        pass


@pytest.mark.parametrize("locks_work", [True, False])
def test_heartbeat_decides_about_a_holder_on_another_machine(tmp_path, monkeypatch, locks_work):
    """Some network file systems have no locks, or only locks within one machine."""
    if not locks_work:
        monkeypatch.setattr(lock, "_flock", lambda descriptor: None)
    path = tmp_path / LOCK_NAME
    path.write_text(json.dumps({"host": "far", "pid": 7, "started": "today", "boot": "other"}))
    with pytest.raises(UsageError, match="process 7 on far, since today"), run_lock(tmp_path):
        pass
    old = time.time() - lock.STALE_S - 1
    os.utime(path, (old, old))
    with run_lock(tmp_path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_holder_renews_the_time_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.01)
    with run_lock(tmp_path):
        os.utime(tmp_path / LOCK_NAME, (0, 0))
        deadline = time.monotonic() + 30
        while (tmp_path / LOCK_NAME).stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"pid": [1]}'])
def test_unreadable_lock_file_of_a_dead_process_is_replaced(tmp_path, content):
    path = tmp_path / LOCK_NAME
    path.write_bytes(content)
    os.utime(path, (0, 0))
    with run_lock(tmp_path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_system_without_flock_uses_the_time_of_the_file(tmp_path, monkeypatch):
    """As on Windows."""
    monkeypatch.setattr(lock, "fcntl", None)
    with run_lock(tmp_path), pytest.raises(UsageError, match="is training in"), run_lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
