"""Containers that share a folder: process numbers repeat, but files and locks do not mix."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_accel.errors import UsageError
from mnist_accel.util.process_lock import process_lock

ROOT = Path(__file__).parents[2]
# A new PID namespace, in which the process has the number 1, as in a container.
CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
WRITES = 300
WRITE = f"""
import os, sys
from pathlib import Path
from mnist_accel.util.files import write_atomically
assert os.getpid() == 1
folder, letter = Path(sys.argv[1]), sys.argv[2].encode()
for number in range({WRITES}):
    write_atomically(folder / str(number % 3), letter * (100_000 + number))
"""
HOLD = """
import sys, time
from pathlib import Path
from mnist_accel.util.process_lock import process_lock
with process_lock(Path(sys.argv[1]), "training"):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module", autouse=True)
def container_support():
    if shutil.which(CONTAINER[0]) is None:
        pytest.skip("this system has no unshare")
    trial = subprocess.run([*CONTAINER, "true"], capture_output=True, text=True)
    if trial.returncode != 0:
        pytest.skip(f"PID namespaces are not permitted: {trial.stderr.strip()}")


def start_in_container(program, *arguments):
    return subprocess.Popen(
        [*CONTAINER, sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_files_written_by_two_containers_are_complete(tmp_path):
    writers = [start_in_container(WRITE, tmp_path, letter) for letter in "ab"]
    while any(writer.poll() is None for writer in writers):
        for file in tmp_path.glob("[0-2]"):
            content = file.read_bytes()
            assert len(content) >= 100_000
            assert len(set(content)) == 1
    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0", "1", "2"]


def test_lock_of_another_container_is_refused_until_it_ends(tmp_path):
    path = tmp_path / "run.lock"
    holder = start_in_container(HOLD, path)
    try:
        assert holder.stdout.readline() == "locked\n"
        assert json.loads(path.read_text())["pid"] == 1
        with pytest.raises(UsageError, match="process 1 on"), process_lock(path, "training"):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with process_lock(path, "training"):
        pass
