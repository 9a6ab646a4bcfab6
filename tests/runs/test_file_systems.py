"""Runs on disks that are full, have a quota or become read-only."""

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


def tmpfs(folder, kilobytes):
    """Return the shell command that mounts a small disk, and the one that makes it large."""
    mount = f"mount -t tmpfs -o size={kilobytes}k none {folder}"
    return mount, f"mount -o remount,size=64m {folder}"


def btrfs_with_quota(folder, kilobytes):
    """Return the same commands for a disk of 256 MB on which `folder` has a quota.

    A quota of btrfs also applies to the superuser, unlike that of tmpfs or ext4.
    """
    for program in ("mkfs.btrfs", "btrfs"):
        if shutil.which(program) is None:
            pytest.skip(f"this system has no {program}")
    image, top = folder.with_suffix(".img"), folder.with_suffix(".top")
    mount = (
        f"truncate -s 256M {image} && mkfs.btrfs -q {image} >&2",
        f"mkdir {top} && mount -o loop {image} {top}",
        f"btrfs quota enable {top} && btrfs subvolume create {top}/w >&2",
        f"btrfs qgroup limit {kilobytes}k {top}/w && mount --bind {top}/w {folder}",
    )
    return " && ".join(mount), f"btrfs qgroup limit none {top}/w"


def on_small_disk(mount, *, script):
    """Run a shell script after the command `mount`; return its exit code and output."""
    if shutil.which("unshare") is None:
        pytest.skip("this system has no unshare")
    mount = f"errors=$({{ {mount}; }} 2>&1) || {{ echo $errors >&2; exit 99; }}"
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


@pytest.mark.parametrize(
    ("small_disk", "kilobytes", "message"),
    [
        (tmpfs, 16, "No space left on device"),
        (tmpfs, 260, "No space left on device"),
        (btrfs_with_quota, 40, "Disk quota exceeded"),
        (btrfs_with_quota, 600, "Disk quota exceeded"),
    ],
)
def test_the_same_command_works_again_after_the_disk_was_full(disk, small_disk, kilobytes, message):
    """Full before the first checkpoint, and before the last file."""
    arguments = " ".join(START)
    train = f"$PYTHON -m mnist_accel.train {arguments} --out {disk}/run"
    mount, enlarge = small_disk(disk, kilobytes)
    code, out, err = on_small_disk(
        mount,
        script=f"""
            {train}; echo "exit $?"
            {enlarge}
            test -e {disk}/run/config.json && $PYTHON -m mnist_accel.train --quiet --resume \
                {disk}/run || {train}
            echo "exit $?"
            find {disk} -name '.*' -type f; ls {disk}/run
        """,
    )
    assert code == 0, err
    assert [line for line in out.splitlines() if line.startswith("exit")] == ["exit 4", "exit 0"]
    assert message in err
    assert len(err.splitlines()) == 1, err
    files = out.split("exit 0\n")[1].split()
    assert files == [
        "checkpoint", "config.json", "curves.png", "filters.png", "metrics.jsonl",
        "mistakes.png", "model.safetensors", "summary.json",
    ]  # fmt: skip


def test_a_file_system_that_becomes_read_only_keeps_the_run(disk, tmp_path):
    arguments = " ".join(START)
    resume = f"$PYTHON -m mnist_accel.train --quiet --resume {disk}/run --iterations 9"
    code, out, err = on_small_disk(
        tmpfs(disk, 64_000)[0],
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
