"""Shell completion: the scripts, and what the Tab key completes in a real bash."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from tests.support.command_line import ROOT

pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_a_script_is_printed_for_each_shell(shell, run):
    code, out, err = run("completion", shell)
    assert (code, err) == (0, "")
    assert "mnist-accel" in out
    assert "_ARGCOMPLETE" in out


@pytest.fixture
def installed(tmp_path):
    """Return the environment of a shell that finds the program `mnist-accel`."""
    program = tmp_path / "bin" / "mnist-accel"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from mnist_accel.commands import main\n"
        "sys.exit(main())\n"
    )
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}


@needs_bash
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("mnist-accel tra", "mnist-accel train "),
        ("mnist-accel train --mod", "mnist-accel train --model "),
        ("mnist-accel train --model len", "mnist-accel train --model lenet "),
        ("mnist-accel train fas", "mnist-accel train fast99 "),
        ("mnist-accel gradcheck --backend numb", "mnist-accel gradcheck --backend numba "),
    ],
)
def test_the_tab_key_completes_in_bash(line, completed, installed):
    """`Alt-#` makes bash print the completed line as a comment in place of running it."""
    leader, follower = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=follower, stdout=follower, stderr=follower,
        env={**installed, "TERM": "dumb", "COLUMNS": "200", "INPUTRC": os.devnull},
        start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    try:
        os.write(leader, b'eval "$(mnist-accel completion bash)"; echo READY=\n')
        _read_until(leader, "\nREADY=")
        os.write(leader, line.encode() + b"\t")
        _read_until(leader, completed)
    finally:
        shell.kill()
        shell.wait()
        os.close(leader)


def _read_until(terminal, text, *, seconds=60):
    """Read what a terminal shows until it contains a text."""
    shown = ""
    end = time.monotonic() + seconds
    while text not in shown:
        assert time.monotonic() < end, shown
        shown += os.read(terminal, 1000).decode().replace("\r\n", "\n")
    return shown
