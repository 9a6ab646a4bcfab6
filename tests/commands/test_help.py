"""`--help`, `--version`, and the modules that run as programs."""

import subprocess
import sys

import mnist_accel as ma
from mnist_accel.commands.dispatcher import COMMANDS
from tests.support.command_line import environment


def test_every_command_has_help(run):
    for command in COMMANDS:
        code, out, _ = run(command, "--help")
        assert code == 0
        assert "exit codes:" in out
        assert "5    training diverged: the loss or a weight became NaN or infinite" in out
        assert "FOLDER" not in out  # as others say DIR
    code, out, _ = run("--help")
    assert code == 0
    assert all(f"  {command} " in out for command in COMMANDS)
    assert run("--version")[1].strip() == f"mnist-accel {ma.__version__}"


def test_modules_run_as_programs():
    for name in ("mnist_accel", "mnist_accel.train"):
        process = subprocess.run(
            [sys.executable, "-W", "error", "-m", name, "--help"],
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        assert process.stdout.startswith(f"usage: python -m {name} ")
