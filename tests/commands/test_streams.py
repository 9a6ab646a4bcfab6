"""Commands whose stdout or stderr is closed, full, or a pipe that its reader has closed."""

import errno
import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_accel.commands import main
from mnist_accel.commands.streams import checked_streams
from tests.support.command_line import DIGITS, environment


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def shell(request):
    """Return a function that runs a line of bash, with buffered or unbuffered Python streams."""

    def shell(line):
        return subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line}"],
            env=environment(PYTHONUNBUFFERED=request.param),
            capture_output=True,
            text=True,
        )

    return shell


DATA = f"{sys.executable} -m mnist_accel data --dataset digits"


@pytest.mark.posix
def test_a_pipe_that_is_read_to_the_end_works(shell):
    done = shell(f"{DATA} | cat")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("digits")


@pytest.mark.posix
@pytest.mark.parametrize("redirection", ["", "--data-dir none 2>&1 >/dev/null"])
def test_a_pipe_closed_by_its_reader_ends_a_command_with_code_141(shell, redirection):
    """`true` ends before the command has started, so the first write of the command fails."""
    done = shell(f"{DATA} {redirection} | true")
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGPIPE, "", "")


@pytest.mark.posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_stream_that_cannot_be_written_gives_exit_code_4(shell):
    done = shell(f"{DATA} >/dev/full")
    assert done.returncode == 4
    assert done.stderr.splitlines() == [
        "python -m mnist_accel data: cannot write to stdout: No space left on device"
    ]
    assert shell(f"{DATA} --help >/dev/full").returncode == 4
    assert shell(f"{DATA} >/dev/full 2>/dev/full").returncode == 4
    assert shell(f"{DATA} >&- 2>&-").returncode == 0


@pytest.mark.posix
def test_exit_handlers_write_control_characters_unchanged(capsys):
    with checked_streams():
        kept = sys.stdout
        print("name\x1b[0m")
    kept.write("\x1b[0m")
    assert capsys.readouterr().out == "name\\x1b[0m\n\x1b[0m"


def test_training_works_with_closed_streams():
    arguments = [*map(str, DIGITS), "--iterations", "3", "--out", "run"]
    command = f"{sys.executable} -m mnist_accel.train {' '.join(arguments)} >&- 2>&-"
    shell = subprocess.run(["bash", "-c", command], env=environment(), check=False)
    assert shell.returncode == 0
    assert Path("run/summary.json").is_file()


def test_pipe_closed_by_its_reader_on_windows_gives_exit_code_141(monkeypatch):
    """Windows reports it as an invalid argument."""

    class ClosedPipe(io.TextIOWrapper):
        def write(self, text):
            raise OSError(errno.EINVAL, "Invalid argument")

    with Path("pipe").open("wb") as file, ClosedPipe(file) as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        monkeypatch.setattr(sys, "platform", "win32")
        assert main(["data", "--dataset", "digits"]) == 141
