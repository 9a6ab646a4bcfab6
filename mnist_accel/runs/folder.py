"""The folder that a training leaves behind.

config.json         everything needed to repeat it
metrics.jsonl       a line per log step and per epoch
summary.json        the result
model.safetensors   the weights
checkpoint/         the place from which it can go on
curves.png, filters.png, mistakes.png
"""

import itertools
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from mnist_accel.checkpoints.checkpoint import CHECKPOINT_NAME
from mnist_accel.errors import DataError, UsageError
from mnist_accel.util.files import remove_unfinished, write_atomically

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
        self.checkpoint = path / "checkpoint" / CHECKPOINT_NAME

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
        path = Path(out or DEFAULT_PARENT / f"{now:%Y%m%d-%H%M%S}-{model}-{backend}")
        try:
            if out is None:
                path = _make_folder(path)
            folder = cls(path)
            folder.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            if folder.config.exists():
                raise FileExistsError
            folder.metrics.touch(exist_ok=False)  # of two runs that want the folder, one gets it
        except FileExistsError as error:
            raise UsageError(
                f"{path} holds a run already, or is a file; choose another --out, "
                f"or go on with --resume {path}"
            ) from error
        except OSError as error:
            raise DataError(
                f"cannot write to the output folder {path}: {error.strerror or error}; "
                "choose another with --out"
            ) from error
        return folder

    @classmethod
    def newest(cls, *, prefer_finished: bool = False) -> "RunFolder":
        """Return the newest run in `runs/`.

        Args:
            prefer_finished: put those that have their final weights before those that have not.

        Raises:
            DataError: there is no run there.
        """

        def rank(run: RunFolder) -> tuple[bool, float]:
            return prefer_finished and run.model.exists(), run.config.stat().st_mtime

        runs = [cls(config.parent) for config in DEFAULT_PARENT.glob("*/config.json")]
        if not runs:
            raise DataError(f"there is no run in {DEFAULT_PARENT}/ yet; train one, or give a path")
        return max(runs, key=rank)

    @classmethod
    def find(cls, path: str) -> "RunFolder":
        """Return an earlier run.

        Args:
            path: its folder, or its checkpoint folder or file.

        Raises:
            DataError: there is no run there.
        """
        if not Path(path).exists():
            raise DataError(f"there is no run {path}: no such file or folder")
        for candidate in (Path(path), *Path(path).parents[:2]):
            if (candidate / "config.json").is_file():
                return cls(candidate)
        raise DataError(f"{path} is not the folder of a run: it has no config.json")

    def remove_unfinished(self) -> None:
        """Remove what a killed process was writing.

        Raises:
            DataError: it cannot be removed.
        """
        try:
            for folder in (self.path, self.checkpoint.parent):
                remove_unfinished(folder)
        except OSError as error:
            raise DataError(f"cannot write to {self.path}: {error.strerror or error}") from error

    def write_json(self, file: Path, content: dict[str, Any]) -> None:
        """Write one of the JSON files, whole or not at all.

        Raises:
            DataError: it cannot be written.
        """
        try:
            write_atomically(file, (_to_json(content, indent=2) + "\n").encode())
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

    def backend_used(self) -> tuple[str, int | None, int | None]:
        """Return what the run computed on, whatever had been asked for.

        Returns:
            The name of the backend, its number of threads and its device; None where it had its own
            rule.

        Raises:
            DataError: `config.json` cannot be read, or does not say it.
        """
        match self.read_json(self.config):
            case {"backend": {"used": str(name)} as backend}:
                # An earlier version chose neither threads nor device, and has not written them.
                match backend.get("threads"), backend.get("device"):
                    case int(threads) | (None as threads), int(device) | (None as device):
                        return name, threads, device
        raise DataError(f"{self.config} does not say which backend was used")

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add a line to `metrics.jsonl`.

        Raises:
            DataError: it cannot be written.
        """
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(_to_json(line) + "\n")
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
            write_atomically(self.metrics, "".join(_to_json(k) + "\n" for k in kept).encode())
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


def _make_folder(path: Path) -> Path:
    """Make the folder `path`, with a number behind its name if that is taken; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = itertools.chain([path.name], (f"{path.name}-{i}" for i in itertools.count(2)))
    for name in names:
        with suppress(FileExistsError):
            path.with_name(name).mkdir()
            return path.with_name(name)
    raise AssertionError("numbers do not end")


def _to_json(content: dict[str, Any], *, indent: int | None = None) -> str:
    """Write JSON as its standard has it: a number that is NaN or infinite becomes null."""
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in content.items()
    }
    return json.dumps(finite, indent=indent, allow_nan=False)
