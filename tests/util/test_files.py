"""Files are written completely or not at all."""

import os
import secrets
import stat
import subprocess
import sys
import textwrap
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from mnist_accel.util import files
from mnist_accel.util.files import append_or_nothing, write_atomically


def test_failed_write_leaves_only_the_old_file(tmp_path, monkeypatch):
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


def test_concurrent_writers_never_expose_a_partial_file(tmp_path):
    path = tmp_path / "file"
    code = textwrap.dedent(f"""
        from pathlib import Path
        from mnist_accel.util.files import append_or_nothing, write_atomically
        for _ in range(40):
            write_atomically(Path({str(path)!r}), bytes(200_000))
    """)
    repository = Path(__file__).parents[2]
    writers = [subprocess.Popen([sys.executable, "-c", code], cwd=repository) for _ in range(2)]
    num_reads = 0
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            # Windows refuses to open the file in the moment in which it is replaced.
            with suppress(PermissionError) if sys.platform == "win32" else nullcontext():
                assert len(path.read_bytes()) == 200_000
                num_reads += 1
    assert [writer.wait() for writer in writers] == [0, 0]
    assert num_reads > 0
    assert list(tmp_path.glob(".*")) == []


def test_folder_that_cannot_be_synced_is_no_error(tmp_path, monkeypatch):
    """Windows cannot open a folder; the file is in its place by then."""
    open_file, sync = os.open, os.fsync

    def open_no_folder(path, flags, *mode):
        if os.path.isdir(path):  # noqa: PTH112
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path, flags, *mode)

    def sync_no_folder(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        sync(descriptor)

    for name, replacement in (("open", open_no_folder), ("fsync", sync_no_folder)):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, replacement)
            write_atomically(tmp_path / "file", name.encode())
        assert (tmp_path / "file").read_text() == name
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.posix
def test_permissions_of_a_replaced_file_are_kept(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    for mode in (0o600, 0o664, 0o640):
        path.chmod(mode)
        write_atomically(path, b"new")
        assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.posix
def test_names_of_temporary_files_are_random_and_links_are_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    names = iter(["planted", "free"])
    monkeypatch.setattr(secrets, "token_hex", lambda count: next(names))
    (tmp_path / ".file.planted.unfinished").symlink_to(victim)
    write_atomically(tmp_path / "file", b"content")
    assert victim.read_bytes() == b"untouched"
    assert (tmp_path / "file").read_bytes() == b"content"
    assert not (tmp_path / "file").is_symlink()


@pytest.mark.parametrize(("failures", "succeeds"), [(3, True), (10**9, False)])
def test_windows_waits_for_a_program_that_reads_the_replaced_file(
    tmp_path, monkeypatch, failures, succeeds
):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    replace = Path.replace
    left = iter(range(failures))

    def replace_unless_open(source, target):
        if next(left, None) is not None:
            raise PermissionError(13, "Access is denied")
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", replace_unless_open)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(files, "_MAX_WAIT_S", 0.2)
    with nullcontext() if succeeds else pytest.raises(PermissionError):
        write_atomically(path, b"new")
    assert path.read_bytes() == (b"new" if succeeds else b"old")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.posix
def test_append_that_does_not_fit_leaves_the_old_content(tmp_path):
    """A limit on the size of files lets the system write only the first bytes."""
    import resource  # does not exist on Windows

    path = tmp_path / "file"
    append_or_nothing(path, b"one\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            append_or_nothing(path, b"2" * 200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    append_or_nothing(path, b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"


@pytest.mark.posix
def test_append_follows_no_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    (tmp_path / "file").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        append_or_nothing(tmp_path / "file", b"content")
    assert victim.read_bytes() == b"untouched"


@pytest.mark.posix
def test_link_in_place_of_a_file_is_replaced_and_lends_no_permissions(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_bytes(b"untouched")
    victim.chmod(0o777)
    path.symlink_to(victim)
    write_atomically(path, b"content")
    assert victim.read_bytes() == b"untouched"
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) & 0o111 == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in folders")
def test_device_or_pipe_is_not_replaced_by_a_file(tmp_path):
    """A file in the place of /dev/null would harm every other program."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(os.devnull)
    for path, kind in ((pipe, "a named pipe"), (link, "a device")):
        before = path.lstat().st_mode
        with pytest.raises(OSError, match=f"it is {kind}, expected a file"):
            write_atomically(path, b"content")
        assert path.lstat().st_mode == before
    assert sorted(tmp_path.iterdir()) == [link, pipe]
