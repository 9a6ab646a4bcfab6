"""Plug-in backends: they train by name, and `--require-backend` makes the suite require them."""

import subprocess
import sys
from pathlib import Path

import pytest

from backends import available_backends
from mnist_accel.data import Dataset
from mnist_accel.recipes.models import create_model
from mnist_accel.training.trainer import Trainer
from tests.support.strict_backend import StrictBackend


def test_registered_backend_trains_by_name(mnist: Dataset) -> None:
    model = create_model("two-layer", backend="array-api-strict", hidden_sizes=(4,))
    assert type(model.backend) is StrictBackend
    loss = Trainer(model, lr=0.05).train_batch(mnist.x_train[:8], mnist.t_train[:8])
    assert loss == pytest.approx(2.3, abs=0.1)  # log 10, because the weights are near 0


def run_suite(*options: str) -> subprocess.CompletedProcess[str]:
    """Run one short contract test for every backend."""
    contract = Path(__file__).with_name("test_contract.py")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(contract), "-k", "test_device_info", *options],
        cwd=contract.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_required_backend_that_cannot_run_fails_the_suite() -> None:
    missing = {name: found for name, found in available_backends().items() if not found.ok}
    if not missing:
        pytest.skip("every backend can run here")
    name, availability = next(iter(missing.items()))
    result = run_suite("--require-backend", name)
    assert result.returncode == 1, result.stdout
    assert f"{name} cannot run here: {availability.reason}" in result.stdout
    assert "1 error" in result.stdout or "1 failed" in result.stdout


@pytest.mark.slow
def test_suite_refuses_to_require_an_unknown_backend() -> None:
    result = run_suite("--require-backend", "tpu")
    assert result.returncode == 4
    assert "--require-backend: unknown backend tpu; choose from cupy, numba, numpy" in result.stderr
