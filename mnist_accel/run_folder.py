"""The folder that a training leaves behind.

config.json         everything needed to repeat it
metrics.jsonl       a line per log step and per epoch
summary.json        the result
model.safetensors   the weights
checkpoint/         the place from which it can go on
curves.png, filters.png, mistakes.png
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from mnist_accel.atomic_file import write_atomically
from mnist_accel.checkpoint import LAST
from mnist_accel.errors import DataError, UsageError

DEFAULT_PARENT = Path("runs")


class RunFolder:
    """Names and formats of the files of one run.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.summary = path / "summary.json"
        self.model = path / "model.safetensors"
        self.checkpoint = path / "checkpoint" / LAST

    @classmethod
    def create(cls, out: str | None, *, model: str, backend: str, now: datetime) -> "RunFolder":
        """Make a new folder.

        Args:
            out: where; `runs/<time>-<model>-<backend>` if None.
            model: name of the recipe.
            backend: name of the backend that is used.
            now: time of the start.

        Raises:
            UsageError: the folder holds a run already.
            DataError: it cannot be made or written.
        """
        name = f"{now:%Y%m%d-%H%M%S}-{model}-{backend}"
        path = Path(out) if out is not None else _unused(DEFAULT_PARENT / name)
        folder = cls(path)
        if folder.config.exists():
            raise UsageError(
                f"{path} holds a run already; choose another --out, or go on with --resume {path}"
            )
        try:
            folder.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            folder.metrics.touch()
        except OSError as error:
            raise DataError(
                f"cannot write to the output folder {path}: {error.strerror or error}; "
                "choose another with --out"
            ) from error
        return folder

    @classmethod
    def find(cls, path: str | None) -> "RunFolder":
        """Return an earlier run.

        Args:
            path: its folder, or its checkpoint folder or file; the newest run in `runs/` if None.

        Raises:
            DataError: there is no run there.
        """
        if path is None:
            runs = sorted(
                (config.parent for config in DEFAULT_PARENT.glob("*/config.json")),
                key=lambda run: (run / "config.json").stat().st_mtime,
            )
            if not runs:
                raise DataError(
                    f"there is no run in {DEFAULT_PARENT}/ yet; train one, or give a path"
                )
            return cls(runs[-1])
        for candidate in (Path(path), *Path(path).parents[:2]):
            if (candidate / "config.json").is_file():
                return cls(candidate)
        raise DataError(f"{path} is not the folder of a run: it has no config.json")

    def write_json(self, file: Path, content: dict[str, Any]) -> None:
        """Write one of the JSON files, whole or not at all.

        Raises:
            DataError: it cannot be written.
        """
        try:
            write_atomically(file, (json.dumps(content, indent=2) + "\n").encode())
        except OSError as error:
            raise DataError(f"cannot write {file}: {error.strerror or error}") from error

    def read_json(self, file: Path) -> dict[str, Any]:
        """Return the content of one of the JSON files.

        Raises:
            DataError: it cannot be read.
        """
        try:
            content = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {file}: {error}") from error
        if not isinstance(content, dict):
            raise DataError(f"{file} must hold a JSON object, got {type(content).__name__}")
        return content

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add a line to `metrics.jsonl`.

        Raises:
            DataError: it cannot be written.
        """
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise DataError(f"cannot write {self.metrics}: {error.strerror or error}") from error

    def read_metrics(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of one kind, "steps" or "epoch", in their order.

        Raises:
            DataError: the file cannot be read.
        """
        return [line for line in self._metrics_lines() if line["event"] == event]

    def truncate_metrics(self, *, step: int, epochs: int) -> None:
        """Drop what a resumed run will write again.

        Args:
            step: the step it is resumed at; lines that lie after it are dropped.
            epochs: how many epochs are complete; reports of later ones are dropped.

        Raises:
            DataError: the file cannot be read or written.
        """
        kept = [
            line
            for line in self._metrics_lines()
            if line["step"] <= step and not (line["event"] == "epoch" and line["epoch"] > epochs)
        ]
        try:
            write_atomically(self.metrics, "".join(json.dumps(k) + "\n" for k in kept).encode())
        except OSError as error:
            raise DataError(f"cannot write {self.metrics}: {error.strerror or error}") from error

    def _metrics_lines(self) -> Iterator[dict[str, Any]]:
        try:
            lines = self.metrics.read_bytes().splitlines()
        except OSError as error:
            raise DataError(f"cannot read {self.metrics}: {error.strerror or error}") from error
        for number, text in enumerate(lines, start=1):
            try:
                line = json.loads(text)
            except ValueError as error:  # not JSON, or not even text
                if number < len(lines):
                    raise DataError(f"{self.metrics}, line {number}, is not JSON") from error
                return  # what a killed process was writing; it is written again
            if not (isinstance(line, dict) and {"event", "step"} <= line.keys()):
                raise DataError(f"{self.metrics}, line {number}, is not a line of metrics")
            yield line


def _unused(path: Path) -> Path:
    """Return `path`, with a number behind it if it is taken."""
    candidate, number = path, 2
    while candidate.exists():
        candidate = path.with_name(f"{path.name}-{number}")
        number += 1
    return candidate
