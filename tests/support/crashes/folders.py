"""The content of a run folder without the parts that depend on the time."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_accel.checkpoints.tensor_file import read_tensors

TIMES = {"seconds", "images_per_s", "epoch_seconds"}  # durations, and what is computed from them
# The settings and the machine. A resumed run also has its earlier configurations.
REPEATED = ("settings", "backend", "data", "versions")


def content(folder: Path, *, join_steps: bool) -> dict[str, Any]:
    """Return the content of every file of a run folder by its path, without times.

    With `join_steps`, the losses of all steps are joined, because an error adds a line that ends at
    the step of the checkpoint that was saved then.
    """
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    found = {str(path.relative_to(folder)): _content(path) for path in files}
    if join_steps:
        lines = found["metrics.jsonl"]
        losses = [loss for line in lines for loss in line.get("losses", ())]
        found["metrics.jsonl"] = losses, [line for line in lines if line["event"] == "epoch"]
    return found


def _content(path: Path) -> Any:
    if path.name == "metrics.jsonl":
        return [_without_times(json.loads(line)) for line in path.read_text().splitlines()]
    if path.name == "summary.json":
        return _without_times(json.loads(path.read_text()))
    if path.name == "config.json":
        config = json.loads(path.read_text())
        return {key: config[key] for key in REPEATED}
    if path.suffix == ".safetensors":
        tensors, header = read_tensors(path)
        arrays = {name: (array.shape, array.tobytes()) for name, array in tensors.items()}
        return arrays, _without_times(header)
    return path.read_bytes()


def _without_times(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_times(v) for key, v in value.items() if key not in TIMES}
    return value


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of the files that only one of two contents has, or that differ."""
    return [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]
