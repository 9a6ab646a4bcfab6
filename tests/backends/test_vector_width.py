"""Training computes the same with vectors of every width; LLVM divides those that are too wide."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("bits", [128, 256, 512])
def test_trajectories_follow_the_reference_at_each_width(bits: int, tmp_path: Path) -> None:
    tests = ["tests/training/test_trajectories.py", "tests/backends/test_compiled_inference.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-k", "numba", *tests]
    run = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "MNIST_ACCEL_VECTOR_BITS": str(bits), "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert "passed" in run.stdout
