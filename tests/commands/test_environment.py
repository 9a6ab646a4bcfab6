"""Commands in unusual environments: notebooks, encodings, threads, and two processes at once."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from backends import pip
from mnist_accel.commands import main
from mnist_accel.runs.folder import RunFolder
from tests.support.command_line import DIGITS, ON_NUMPY

ROOT = Path(__file__).parents[2]
SMALL = (*ON_NUMPY, "--iterations", 3, "--quiet")


def run_process(*arguments, cwd=None, **environment):
    """Run a command in a process with additional environment variables; output is bytes."""
    return subprocess.run(
        [sys.executable, "-m", "mnist_accel", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize(
    "backend",
    [
        "module://matplotlib_inline.backend_inline",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("module://missing.package", "unknown", "")
        ),
        "TkAgg",
    ],
)
def test_training_draws_its_pictures_with_any_mplbackend(tmp_path, backend):
    result = run_process("train", *SMALL, "--out", "run", cwd=tmp_path, MPLBACKEND=backend)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "curves.png").exists()
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("cp1252", marks=pytest.mark.slow)])
def test_output_that_cannot_be_encoded_is_replaced(tmp_path, encoding):
    out = tmp_path / "rün ▁ 数"
    result = run_process("train", *SMALL, "--out", out, PYTHONIOENCODING=encoding)
    assert result.returncode == 0, result.stderr
    assert b"all files are in " in result.stdout
    for arguments in (
        ("evaluate", out, "--backend", "numpy"),
        ("predict", out, "--index", 1, "--backend", "numpy"),
        ("doctor", "--explain", "lenet"),
        ("data", "--dataset", "digits"),
        ("gradcheck", "--model", "two-layer"),
        ("train", "--help"),
    ):
        result = run_process(*arguments, cwd=tmp_path, PYTHONIOENCODING=encoding)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["fährt nicht", "\udcff"])
def test_error_message_that_cannot_be_encoded_is_replaced(tmp_path, name):
    for encoding in ("ascii", "utf-8"):
        result = run_process("evaluate", name, cwd=tmp_path, PYTHONIOENCODING=encoding)
        assert result.returncode == 4
        assert b"Traceback" not in result.stderr


def test_path_that_the_file_system_cannot_encode_gives_advice(tmp_path):
    settings = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = (
        "from mnist_accel.commands import main; "
        f"raise SystemExit(main({[*map(str, SMALL)]!r} and ['train', *{[*map(str, SMALL)]!r}, "
        "'--out', 'r\\u00fcn']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **settings},
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in result.stderr
    assert result.returncode == 0 or b"set PYTHONUTF8=1" in result.stderr


def test_commands_run_outside_the_main_thread(tmp_path, capsys):
    codes = []

    def work():
        codes.append(main(["train", *map(str, SMALL), "--out", str(tmp_path / "run")]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert codes == [0], capsys.readouterr().err


def test_second_process_on_a_run_folder_is_refused(run, fails):
    assert run("train", *SMALL, "--out", "run")[0] == 0
    before = sorted(path.name for path in Path("run").iterdir())
    with RunFolder(Path("run")).lock():
        fails(
            2,
            "train",
            *("--resume", "run", "--iterations", 9),
            says=f"another process is training in run: process {os.getpid()} on ",
        )
    assert run("train", "--resume", "run", "--iterations", 9, "--quiet")[0] == 0
    assert sorted(path.name for path in Path("run").iterdir()) == before


def test_numba_without_compilation_is_unavailable(tmp_path):
    small = ("train", *DIGITS, "--iterations", 3, "--quiet")
    result = run_process(*small, "--out", "a", cwd=tmp_path, NUMBA_DISABLE_JIT="1")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "a" / "config.json").read_text())["backend"]["used"] == "numpy"
    result = run_process(
        *small, "--out", "b", "--backend", "numba", cwd=tmp_path, NUMBA_DISABLE_JIT="1"
    )
    assert result.returncode == 3
    assert b"NUMBA_DISABLE_JIT is set" in result.stderr


def test_every_command_runs_without_numba(tmp_path):
    """As on systems for which Numba has no wheel."""
    expected = {
        "train --dataset digits --iterations 20 --out run": (0, "backend numpy, "),
        "evaluate run": (0, "accuracy "),
        "predict run --index 1": (0, "predicted "),
        "gradcheck --model two-layer --elements 1": (0, "all gradients are within"),
        "compare --dataset digits": (3, f"Numba is not installed; {pip('install', 'numba')} (it "),
        "data --dataset digits": (0, "digits"),
        "doctor --explain lenet": (0, "cannot run here: Numba is not installed"),
        "doctor": (0, "backend numba     Numba is not installed"),
    }
    result = subprocess.run(
        [sys.executable, "-m", "tests.support.without_numba", *expected],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    assert "missing: numba" not in result.stdout
    outputs = result.stdout.split("exit code ")
    codes = [int(output[0]) for output in outputs[1:]]
    for output, code, (command, (expected_code, shown)) in zip(
        outputs, codes, expected.items(), strict=False
    ):
        assert (code, shown in output) == (expected_code, True), f"{command}: {output}"
