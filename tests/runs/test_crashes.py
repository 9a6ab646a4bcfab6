"""A training that is stopped at any operation on files continues to the same run folder.

By default, a sample of the operations is checked, and a larger one in slow tests. `pytest
tests/runs/test_crashes.py --crash-every 1` checks all of them, which takes some minutes.

Weights, checkpoint, metrics, summary and pictures are compared, except times. The operations are
the calls of the C library that create, write, rename, shorten, sync or remove a file or a folder.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import environment

SUPPORT = Path(__file__).parents[1] / "support" / "crashes"
# Epochs of three steps.
SMALL = (
    *("--dataset", "digits", "--limit-train", "192", "--limit-test", "50", "--threads", "1"),
    *("--hidden-sizes", "8", "--batch-size", "64", "--optimizer", "momentum"),
)
WITHIN_AN_EPOCH = ("--iterations", "7", "--log-every", "2", "--checkpoint-every", "3")
# The last checkpoint at a multiple of two steps is older than the report of the last epoch.
AT_THE_END_OF_AN_EPOCH = ("--epochs", "2", "--log-every", "4", "--checkpoint-every", "2")
BY_A_RULE = ("--epochs", "9", "--log-every", "2", "--lr", "1e-9", "--patience", "1")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None,
    reason="faults are injected on Linux, with a C compiler",
)


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of the library that injects faults."""
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    options = ("-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")
    subprocess.run(
        ["cc", *options, "-o", str(library), str(SUPPORT / "faults.c"), "-ldl"], check=True
    )
    return str(library)


@pytest.fixture
def check(faults: str, tmp_path: Path, request: pytest.FixtureRequest):
    """Return a function that checks every `step`-th operation of a training."""
    every = request.config.getoption("--crash-every")

    def check(*training: str, step: int, again: int = 0) -> None:
        step = every or step
        driver = ("-m", "tests.support.crashes.driver", f"--step={step}", f"--again={again}")
        result = subprocess.run(
            [sys.executable, *driver, "--", *training],
            cwd=tmp_path,
            env=environment(LD_PRELOAD=faults, OPENBLAS_NUM_THREADS="1"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        report = json.loads(result.stdout)
        assert report["operations"] > 50
        assert report["problems"] == {}

    return check


@pytest.mark.timeout(0)
@pytest.mark.parametrize("step", [53, pytest.param(13, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("backend", "end"),
    [
        ("numpy", WITHIN_AN_EPOCH),
        ("numpy", AT_THE_END_OF_AN_EPOCH),
        ("numpy", BY_A_RULE),
        # Slow, because the files are written by the same code.
        pytest.param("numba", WITHIN_AN_EPOCH, marks=pytest.mark.slow),
    ],
)
def test_stopped_training_continues_to_the_same_folder(check, backend, end, step):
    check(*SMALL, *end, "--backend", backend, step=step)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("step", [67, pytest.param(29, marks=pytest.mark.slow)])
def test_training_that_is_stopped_again_while_it_continues_does_as_well(check, step):
    check(*SMALL, *WITHIN_AN_EPOCH, "--backend", "numpy", step=step, again=8)
