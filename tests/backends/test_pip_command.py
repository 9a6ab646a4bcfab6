"""The command of pip in messages is that of the Python that runs, quoted for the user's shell."""

import shlex
import subprocess
import sys

import pytest

from backends import pip


def test_the_command_runs_on_this_system() -> None:
    words = shlex.split(pip("install", "cupy-cuda12x[ctk]"))
    assert words == [sys.executable, "-m", "pip", "install", "cupy-cuda12x[ctk]"]
    assert (
        subprocess.run([*words[:3], "--version"], check=False, capture_output=True).returncode == 0
    )


@pytest.mark.parametrize(
    ("platform", "python", "command"),
    [
        ("linux", "/a b/python", "'/a b/python' -m pip install 'x[y]'"),
        ("win32", r"C:\a\python.exe", r'C:\a\python.exe -m pip install "x[y]"'),
        ("win32", r"C:\a b\python.exe", r'"C:\a b\python.exe" -m pip install "x[y]"'),
        ("linux", "", "python -m pip install 'x[y]'"),  # an embedded Python has no path
    ],
)
def test_paths_and_extras_are_quoted(
    monkeypatch: pytest.MonkeyPatch, platform: str, python: str, command: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(sys, "executable", python)
    assert pip("install", "x[y]") == command
