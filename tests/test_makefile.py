"""`make train` installs what training needs; the other commands install the development tools."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.skipif(shutil.which("make") is None, reason="needs make"),
    pytest.mark.skipif(not (ROOT / "Makefile").exists(), reason="needs the repository"),
]


def make(*arguments):
    """Return what `make` prints."""
    done = subprocess.run(
        ["make", "--directory", ROOT, "--no-print-directory", *arguments],
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("command", ["train", "test", "lint", "accept", "bench"])
def test_only_make_train_does_without_the_development_tools(tmp_path, command):
    code, commands = make("--dry-run", command, f"VENV={tmp_path}/new")
    assert code == 0
    assert commands.count("pip install") == 1
    assert ('--editable ".[dev]"' in commands) == (command != "train")


def test_the_development_tools_include_what_training_needs(tmp_path):
    for stamp in (".created", ".installed", ".installed-dev"):
        (tmp_path / stamp).touch()
    assert "pip install" not in make("--dry-run", "train", "test", f"VENV={tmp_path}")[1]


def test_a_step_of_the_set_up_says_what_it_does_and_whether_it_failed(tmp_path):
    code, text = make(f"{tmp_path}/.created", f"VENV={tmp_path}", "PYTHON=true")
    assert (code, text) == (0, f"creating the environment in {tmp_path} (a few seconds)  done\n")
    assert (tmp_path / ".created").exists()
    (tmp_path / ".created").unlink()
    code, text = make(f"{tmp_path}/.created", f"VENV={tmp_path}", "PYTHON=false")
    assert code == 2
    assert text.endswith(" failed\n")
    assert not (tmp_path / ".created").exists()


def interrupt_set_up(folder):
    """Send SIGINT to make and its children, as Ctrl-C does; return the exit code and stderr."""
    process = subprocess.Popen(
        ["make", "--directory", ROOT, f"{folder}/.created", f"VENV={folder}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (folder / "pyvenv.cfg").exists() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    return process.returncode, err


@pytest.mark.posix
def test_ctrl_c_during_the_set_up_prints_no_traceback(tmp_path):
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        code, err = interrupt_set_up(folder)
        assert code != 0
        assert "Traceback" not in err
        assert not (folder / ".created").exists()
        # In 1 of 50 runs, GNU make 4.3 waits for a child that it has already waited for.
        if "wait: No child processes" not in err:
            break
    assert "Interrupt" in err
