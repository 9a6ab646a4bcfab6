"""Child processes compile kernels for their parent, and end with it."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

pytest.importorskip("numba")

import numba

from backends.numba import helpers
from backends.numba.kernels import disk_cache

ROOT = Path(__file__).parents[2]

START = """
import sys, time
import numpy as np
from backends import compiled_kernels
from backends.numba import helpers
from backends.numba.kernels import updates
from backends.numba.kernels.compilation import for_arguments

vector = np.zeros(8, np.float32)
parameters = updates.Parameters(vector, np.zeros(1, np.uint64))
rule = updates.Rule(False, *[0.0] * 8)
kernels = [
    for_arguments(updates.KERNELS[name], rule, 0.0, 0, parameters, vector, 0, 0)
    for name in ("sgd", "momentum", "adagrad")
]
"""

COMPILE = """
with helpers.compiling(kernels):
    end = time.monotonic() + float(sys.argv[1])
    while len(compiled_kernels) < 3 and time.monotonic() < end:
        time.sleep(0.01)
for kernel in kernels:
    kernel.address()
hits = sum(sum(kernel.function.stats.cache_hits.values()) for kernel in kernels)
print(hits, *sorted(compiled_kernels))
"""

WAIT = """
start = helpers._start
def show():
    process = start()
    print(process.pid, flush=True)
    return process
helpers._start = show
with helpers.compiling(kernels):
    time.sleep(60)
"""


def command(code: str, folder: Path, **environment: str) -> dict[str, object]:
    """Return arguments of `subprocess` that run code with an empty cache in a folder."""
    return {
        "args": [sys.executable, "-c", START + code, environment.pop("seconds", "20")],
        "cwd": ROOT,
        "env": {
            **os.environ,
            "NUMBA_NUM_THREADS": "2",
            "NUMBA_CACHE_DIR": str(folder),
            **environment,
        },
        "stdout": subprocess.PIPE,
        "text": True,
    }


def test_a_helper_compiles_kernels_that_its_parent_loads(tmp_path: Path) -> None:
    run = subprocess.run(**command(COMPILE, tmp_path), check=True, stderr=subprocess.PIPE)
    assert run.stdout.split() == ["3", "adagrad", "momentum", "sgd"]
    assert run.stderr.startswith("compiling kernels for this CPU")
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("code", "threads"),
    [
        pytest.param(
            "helpers._CODE = 'no Python'", "2", id="helper does not start", marks=pytest.mark.slow
        ),
        pytest.param(
            "helpers._CODE = 'print(\"ready\", flush=True); input()'", "2", id="helper fails"
        ),
        pytest.param("", "1", id="one core", marks=pytest.mark.slow),
    ],
)
def test_without_a_helper_the_parent_compiles(tmp_path: Path, code: str, threads: str) -> None:
    given = command(code + COMPILE, tmp_path, NUMBA_NUM_THREADS=threads, seconds="0.5")
    run = subprocess.run(**given, check=True, stderr=subprocess.PIPE)
    loaded, *compiled = run.stdout.split()
    assert loaded == "0"
    assert set(compiled) == {"adagrad", "momentum", "sgd"}
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals for processes")
@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGKILL", marks=pytest.mark.slow)])
def test_helpers_end_with_their_parent(tmp_path: Path, name: str) -> None:
    given = command(WAIT, tmp_path)
    with subprocess.Popen(**given, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        helper = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.send_signal(getattr(signal, name))
    end = time.monotonic() + 20
    while _exists(helper):
        assert time.monotonic() < end
        time.sleep(0.01)


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_process_has_at_most_one_helper_per_other_core(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for cores in (1, 2, 3, 64):
        monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", cores)
        counts.append(helpers._helper_count(9))
    assert counts == [0, 1, 2, 3]
    assert [helpers._helper_count(kernels) for kernels in (0, 2, 3)] == [0, 0, 1]


def test_programs_and_machines_on_which_helpers_cannot_work_have_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 8)
    with monkeypatch.context() as changed:
        for program in ("/usr/bin/uwsgi", "/usr/bin/uwsgi-python3", "", None):
            changed.setattr(sys, "executable", program)
            assert helpers._helper_count(9) == 0
    with monkeypatch.context() as changed:  # one file that contains Python and a program
        changed.setattr(sys, "frozen", True, raising=False)
        assert helpers._helper_count(9) == 0
    monkeypatch.setitem(disk_cache.problems, "unusable", "the disk is full")
    assert helpers._helper_count(9) == 0


@pytest.mark.slow
@pytest.mark.parametrize("option", ["-I", "-E"])
def test_helpers_ignore_the_environment_if_their_parent_does(tmp_path: Path, option: str) -> None:
    """A `sitecustomize` on PYTHONPATH would run in each Python that reads the environment."""
    (tmp_path / "sitecustomize.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w').close()")
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from backends.numba import helpers
with helpers._start() as helper:
    print(helper.stdout.readline().decode())
    helper.kill()
"""
    run = subprocess.run(
        [sys.executable, option, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["ready"]
    assert not (tmp_path / "was_run").exists()


def test_child_processes_have_no_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_NUM_THREADS", "8")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(helpers._helper_count, 9).result() == 0


TRAIN = """
import mnist_accel as ma

backend = ma.get_backend("numba", threads=1)
digits = ma.load_dataset("digits", None)
for name in ("two-layer", "lenet"):
    model = ma.create_model(name, backend=backend, seed=0, form=digits.form)
    ma.Trainer(model, "adam", batch_size=50).fit(digits.x_train, digits.t_train, iterations=9)
    print(model.parameters.flat.tobytes().hex())
"""


@pytest.mark.slow
def test_weights_are_the_same_with_kernels_that_helpers_compiled(tmp_path: Path) -> None:
    weights = [
        subprocess.run(
            **command(TRAIN, tmp_path / threads, NUMBA_NUM_THREADS=threads),
            check=True,
            stderr=subprocess.DEVNULL,
        ).stdout
        for threads in ("1", "2")
    ]
    assert weights[0] == weights[1]
