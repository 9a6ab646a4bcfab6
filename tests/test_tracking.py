"""The program that logs to MLflow runs, with a folder in place of a server."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docs" / "how-to" / "log_to_mlflow.py"


def version_of_mlflow() -> int:
    """Return the major version of MLflow; 0 without it. Older ones need another protobuf."""
    for package in ("mlflow-skinny", "mlflow"):
        try:
            return int(importlib.metadata.version(package).partition(".")[0])
        except importlib.metadata.PackageNotFoundError:
            continue
    return 0


@pytest.mark.skipif(version_of_mlflow() < 3, reason="needs MLflow 3: pip install -e '.[mlflow]'")
def test_the_callback_for_mlflow_logs_parameters_curves_and_the_network(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MLFLOW_TRACKING_URI": (tmp_path / "store").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    finished = subprocess.run(
        [sys.executable, SCRIPT], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    (run,) = (path.parent for path in tmp_path.glob("store/*/*/metrics"))
    assert (run / "params" / "model").read_text() == "two-layer"
    assert (run / "params" / "lr").read_text() == "0.01"
    assert (run / "artifacts" / "model.safetensors").stat().st_size > 100_000
    # Each line has a time, a value and a step. An epoch of the digits has 23 steps.
    curves = {
        file.name: [line.split() for line in file.read_text().splitlines()]
        for file in (run / "metrics").iterdir()
    }
    assert [int(step) for _, _, step in curves["loss"]] == [10, 20, 30, 40, 50, 60]
    assert [int(step) for _, _, step in curves["validation_accuracy"]] == [23, 46, 69]
    assert float(curves["validation_accuracy"][-1][1]) > 0.8
    assert float(curves["loss"][-1][1]) < float(curves["loss"][0][1])
