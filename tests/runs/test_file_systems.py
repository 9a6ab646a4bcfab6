"""Runs on disks that are full or become read-only."""

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


def on_small_disk(folder, *, kilobytes, script):
    """Run a shell script with a file system of the given size at `folder`; return its output."""
    if shutil.which("unshare") is None:
        pytest.skip("this system has no unshare")
    mount = f"mount -t tmpfs -o size={kilobytes}k none {folder} || exit 99"
    result = subprocess.run(
        # A mount namespace, which is removed when the script ends.
        ["unshare", "--mount", "sh", "-c", f"{mount}\n{script}"],
        env=environment(PYTHON=PYTHON),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode == 99 or result.stderr.startswith("unshare:"):
        pytest.skip(f"mounts are not permitted: {result.stderr.strip()}")
    return result.returncode, result.stdout, result.stderr


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


@pytest.mark.posix
@pytest.mark.parametrize("limit", [0, 500, 20_000])
def test_a_limit_on_the_size_of_files_leaves_a_folder_that_the_same_command_can_use(
    tmp_path, limit, monkeypatch
):
    """As a quota: the first file that exceeds it cannot be written."""
    import resource  # does not exist on Windows

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
