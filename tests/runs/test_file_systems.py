"""Runs on disks that are full or read-only, and in containers that share a folder."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_accel.commands import main
from tests.support.command_line import DIGITS, assert_same_weights, environment, read_json

TRAIN = ("-m", "mnist_accel.train")
# Large enough that a checkpoint does not fit in the small file systems of these tests.
START = (*DIGITS, "--limit-train", "192", "--iterations", "6", "--quiet")
PYTHON = sys.executable


def in_namespaces(*flags, script, **variables):
    """Run a shell script as root of its own namespaces; skip the test where that is impossible."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare, which creates namespaces, is not installed")
    prefix = [unshare, *flags] if os.getuid() == 0 else [unshare, "--map-root-user", *flags]
    probe = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"the system permits no new namespaces: {probe.stderr.strip()}")
    return subprocess.Popen(
        [*prefix, "sh", "-c", script],
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def on_small_disk(folder, *, kilobytes, script):
    """Run a shell script with a file system of the given size at `folder`; return its output."""
    process = in_namespaces(
        "--mount",
        script=f"mount -t tmpfs -o size={kilobytes}k none {folder} || exit 99\n{script}",
        PYTHON=PYTHON,
    )
    out, err = process.communicate()
    if process.returncode == 99:
        pytest.skip(f"the system permits no mounts: {err.strip()}")
    return process.returncode, out, err


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("kilobytes", [16, 260])
def test_the_same_command_works_again_after_the_disk_was_full(disk, kilobytes):
    """Full before the first checkpoint, and before the last one."""
    arguments = " ".join(START)
    train = f"$PYTHON -m mnist_accel.train {arguments} --out {disk}/run"
    code, out, err = on_small_disk(
        disk,
        kilobytes=kilobytes,
        script=f"""
            {train}; echo "exit $?"
            mount -o remount,size=64m {disk}
            test -e {disk}/run/config.json && $PYTHON -m mnist_accel.train --quiet --resume \
                {disk}/run || {train}
            echo "exit $?"
            find {disk} -name '.*' -type f; ls {disk}/run
        """,
    )
    assert code == 0, err
    assert [line for line in out.splitlines() if line.startswith("exit")] == ["exit 4", "exit 0"]
    assert "No space left on device" in err
    assert len(err.splitlines()) == 1, err
    files = out.split("exit 0\n")[1].split()
    assert files == [
        "checkpoint", "config.json", "curves.png", "metrics.jsonl", "mistakes.png",
        "model.safetensors", "summary.json",
    ]  # fmt: skip


def test_a_file_system_that_becomes_read_only_keeps_the_run(disk, tmp_path):
    arguments = " ".join(START)
    resume = f"$PYTHON -m mnist_accel.train --quiet --resume {disk}/run --iterations 9"
    code, out, err = on_small_disk(
        disk,
        kilobytes=64_000,
        script=f"""
            $PYTHON -m mnist_accel.train {arguments} --out {disk}/run || exit
            mount -o remount,ro {disk}
            {resume}; echo "exit $?"
            mount -o remount,rw {disk}
            {resume}; echo "exit $?"
            cp -r {disk}/run {tmp_path}/copy
        """,
    )
    assert code == 0, err
    assert [line for line in out.splitlines() if line.startswith("exit")] == ["exit 4", "exit 0"]
    assert "Read-only file system" in err
    assert len(err.splitlines()) == 1, err
    assert read_json(tmp_path / "copy/summary.json")["steps"] == 9


@pytest.mark.parametrize("limit", [0, 500, 20_000])
def test_a_limit_on_the_size_of_files_leaves_a_folder_that_the_same_command_can_use(
    tmp_path, limit, monkeypatch
):
    """As a quota: the first file that exceeds it cannot be written."""
    monkeypatch.chdir(tmp_path)
    limited = subprocess.run(
        [PYTHON, *TRAIN, *START, "--out", "run"],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert limited.returncode == 4
    assert len(limited.stderr.splitlines()) == 1, limited.stderr
    assert "File too large" in limited.stderr
    assert not Path("run/config.json").exists()
    assert main(["train", *START, "--out", "run"]) == 0
    assert main(["train", *START, "--out", "other"]) == 0
    assert_same_weights("run", "other")


def test_processes_with_equal_numbers_in_two_containers_write_whole_files(tmp_path):
    """Each container counts its processes from 1, so both writers have the same number."""
    path = tmp_path / "file"
    code = f"""
import os
from pathlib import Path
from mnist_accel.util.files import write_atomically
for _ in range(60):
    write_atomically(Path({str(path)!r}), bytes(200_000))
print(os.getpid())
"""
    flags = ("--pid", "--fork", "--kill-child")
    script = 'exec "$PYTHON" -c "$CODE"'
    writers = [in_namespaces(*flags, script=script, PYTHON=PYTHON, CODE=code) for _ in range(2)]
    sizes = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            sizes.add(len(path.read_bytes()))
    outputs = [writer.communicate() for writer in writers]
    assert outputs[0] == outputs[1] == ("1\n", "")
    assert sizes == {200_000}
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_container_is_refused_and_told_who_holds_the_lock(tmp_path):
    """The lock works across containers, in which the number of the holder means nothing."""
    code = f"""
import os, time
from mnist_accel.errors import UsageError
from mnist_accel.runs.folder import RunFolder
from pathlib import Path
try:
    with RunFolder(Path({str(tmp_path)!r})).lock():
        print("locked", flush=True)
        time.sleep(int(os.environ["SECONDS_TO_HOLD"]))
except UsageError as error:
    print(error)
"""

    def container(name, *, seconds):
        return in_namespaces(
            *("--pid", "--fork", "--kill-child", "--uts"),
            script=f'hostname {name}; exec "$PYTHON" -c "$CODE"',
            PYTHON=PYTHON,
            CODE=code,
            SECONDS_TO_HOLD=str(seconds),
        )

    holder = container("one", seconds=100)
    try:
        assert holder.stdout.readline() == "locked\n"
        out, err = container("two", seconds=0).communicate()
        assert "another process is training in" in out, err
        assert "process 1 on one, since" in out
    finally:
        holder.kill()
        holder.communicate()
    assert container("three", seconds=0).communicate() == ("locked\n", "")
