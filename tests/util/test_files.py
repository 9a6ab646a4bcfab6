"""Files are written completely or not at all."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mnist_accel.util.files import write_atomically


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
        from mnist_accel.util.files import write_atomically
        for _ in range(40):
            write_atomically(Path({str(path)!r}), bytes(200_000))
    """)
    repository = Path(__file__).parents[2]
    writers = [subprocess.Popen([sys.executable, "-c", code], cwd=repository) for _ in range(2)]
    num_reads = 0
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            num_reads += 1
            assert len(path.read_bytes()) == 200_000
    assert [writer.wait() for writer in writers] == [0, 0]
    assert num_reads > 0
    assert list(tmp_path.glob(".*")) == []
