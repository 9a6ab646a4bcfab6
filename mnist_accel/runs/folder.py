"""The folder of a run.

config.json         everything needed to repeat the run
metrics.jsonl       one line per log step and per epoch
summary.json        the result
model.safetensors   the final weights
checkpoint/         the state from which the run can be resumed
curves.png, filters.png, mistakes.png
events.out.tfevents.…   the metrics for TensorBoard, with --log tensorboard
"""

from array import array
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

from mnist_accel.checkpoints.checkpoint import CHECKPOINT_NAME
from mnist_accel.errors import DataError, UsageError, file_errors
from mnist_accel.recipes.settings import MAX_JSON_BYTES
from mnist_accel.runs.schema import MetricsLine
from mnist_accel.util.files import (
    append_or_nothing,
    remove_unfinished,
    sync_file,
    write_atomically,
)
from mnist_accel.util.input_files import read_regular
from mnist_accel.util.json_text import to_json
from mnist_accel.util.process_lock import process_lock
from mnist_accel.util.schema import convert, decode_json

DEFAULT_PARENT = Path("runs")
_MAX_METRICS_BYTES = 2**28
_MAX_METRICS_LINE_BYTES = 2**24  # the losses of over a million steps; they are read as one list


class RunFolder:
    """The folder of one run at `path`; the other attributes are the paths of its files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.summary = path / "summary.json"
        self.model = path / "model.safetensors"
        self.checkpoint = path / "checkpoint" / CHECKPOINT_NAME

    @classmethod
    def create(cls, out: str | None, *, model: str, backend: str, now: datetime) -> "RunFolder":
        """Create the folder `out`, or `runs/<time>-<model>-<backend>` if it is None.

        Raises:
            UsageError: `out` already contains a run, or is a file.
            DataError: the folder cannot be created.
        """
        path = Path(out or DEFAULT_PARENT / f"{now:%Y%m%d-%H%M%S}-{model}-{backend}")
        try:
            if out is None:
                path = _create_folder(path)
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise UsageError(f"{path} is a file; choose another --out") from error
        except OSError as error:
            raise DataError(
                f"cannot write to the output folder {path}: {error.strerror or error}; "
                "choose another with --out"
            ) from error
        folder = cls(path)
        folder.require_no_run()
        return folder

    def require_no_run(self) -> None:
        """Check that no training has begun in this folder.

        `config.json` is written last when a run begins, after the first checkpoint. Files of a
        process that was killed earlier than that do not count: a new run may replace them.

        Raises:
            UsageError: the folder contains a run, or files that a run would replace.
        """
        found = [file for file in (self.config, self.summary, self.model) if file.exists()]
        if self.metrics.exists() and self.metrics.stat().st_size:
            found.append(self.metrics)
        if found:
            raise UsageError(
                f"{self.path} already contains a run ({found[0].name}); choose another --out, "
                f"or continue the run with --resume {self.path}"
            )

    @classmethod
    def newest(cls, *, prefer_finished: bool = False) -> "RunFolder":
        """Return the newest run in `runs/`, or the newest with final weights if preferred.

        Raises:
            DataError: `runs/` contains no run.
        """

        def rank(run: RunFolder) -> tuple[bool, float]:
            return prefer_finished and run.model.exists(), run.config.stat().st_mtime

        runs = [cls(config.parent) for config in DEFAULT_PARENT.glob("*/config.json")]
        if not runs:
            raise DataError(f"{DEFAULT_PARENT}/ contains no run; train one first, or give a path")
        return max(runs, key=rank)

    @classmethod
    def find(cls, path: str) -> "RunFolder":
        """Return the run at `path`: its folder, or its checkpoint folder or file.

        Raises:
            DataError: the path does not belong to a run.
        """
        if not Path(path).exists():
            raise DataError(f"run {path} does not exist; give a run folder, such as one in runs/")
        for candidate in (Path(path), *Path(path).parents[:2]):
            if (candidate / "config.json").is_file():
                return cls(candidate)
        raise DataError(
            f"{path} is not a run folder: it contains no config.json; if its training was stopped "
            "before the first step, repeat the command that began it"
        )

    def lock(self) -> AbstractContextManager[None]:
        """Return a context in which no other process trains in this folder.

        Entering it raises:
            UsageError: another process trains in the folder.
            DataError: the lock file cannot be written.
        """
        return process_lock(self.path / "run.lock", f"training in {self.path}")

    def remove_unfinished(self) -> None:
        """Remove unfinished files of a killed process.

        Raises:
            DataError: a file cannot be removed.
        """
        with file_errors(f"write to {self.path}"):
            for folder in (self.path, self.checkpoint.parent):
                remove_unfinished(folder)

    def write_json(self, file: Path, content: dict[str, Any]) -> None:
        """Write one of the JSON files; if that fails, the previous file is unchanged.

        Raises:
            DataError: the file cannot be written.
        """
        with file_errors(f"write {file}"):
            write_atomically(file, (to_json(content, indent=2) + "\n").encode())

    def read_json(self, file: Path) -> dict[str, Any]:
        """Return the content of one of the JSON files.

        Raises:
            DataError: the file cannot be read, or contains no JSON object.
        """
        with file_errors(f"read {file}"):
            text = read_regular(file, max_bytes=MAX_JSON_BYTES)
        return decode_json(text, dict[str, Any], name=str(file), kind="a JSON object")

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Append a line to `metrics.jsonl`.

        Raises:
            DataError: the file cannot be written.
        """
        with file_errors(f"write {self.metrics}"):
            append_or_nothing(self.metrics, (to_json(line) + "\n").encode())

    def sync_metrics(self) -> None:
        """Write `metrics.jsonl` to the disk, so that a power failure cannot shorten it.

        Raises:
            DataError: the file cannot be written.
        """
        with file_errors(f"write {self.metrics}"):
            if self.metrics.exists():  # it may not exist before the first line
                sync_file(self.metrics)

    def write_metrics(self, lines: Iterable[dict[str, Any]]) -> None:
        """Replace the lines of `metrics.jsonl`.

        Raises:
            DataError: the file cannot be written.
        """
        with file_errors(f"write {self.metrics}"):
            write_atomically(
                self.metrics, "".join(to_json(_plain(k)) + "\n" for k in lines).encode()
            )

    def read_metrics(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return the lines whose event is `event`, "steps" or "epoch"; all lines if it is None.

        Raises:
            DataError: the file cannot be read.
        """
        return [line for line in self._metrics_lines() if event in (None, line["event"])]

    def _metrics_lines(self) -> Iterator[dict[str, Any]]:
        remedy = f"restore it, or start a new run with --config {self.config}"
        if not self.metrics.exists():
            raise DataError(f"{self.metrics} is missing; {remedy}")
        with file_errors(f"read {self.metrics}"):
            # The text after the last line feed was being written when a process was killed; the
            # resumed run writes it again.
            lines = read_regular(self.metrics, max_bytes=_MAX_METRICS_BYTES).split(b"\n")[:-1]
        last: dict[str, int] = {"steps": 0, "epoch": 0}  # by event, the end of the last line
        for number, text in enumerate(lines, start=1):
            name = f"{self.metrics}, line {number},"
            if len(text) > _MAX_METRICS_LINE_BYTES:
                raise DataError(f"{name} has {len(text):,} bytes, too many; {remedy}")
            line = decode_json(text, dict[str, Any], name=name, kind="a line of metrics")
            try:
                convert(line, MetricsLine)  # type: ignore[arg-type]  # a union
            except ValueError as error:
                raise DataError(f"{name} is not a line of metrics: {error}") from error
            if "losses" in line:
                line["losses"] = array("d", line["losses"])  # a quarter of the memory of a list
            event = line["event"]
            position = line["epoch"] if event == "epoch" else line["step"]
            if position <= last[event]:
                unit = event.removesuffix("s")
                raise DataError(
                    f"{name} is for {unit} {position}, but an earlier line is for {unit} "
                    f"{last[event]}; {remedy}"
                )
            if len(line.get("losses", ())) > position - last[event]:
                raise DataError(f"{name} has more losses than steps; {remedy}")
            last[event] = position
            yield line


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line of metrics with losses that JSON can represent."""
    return {**line, "losses": list(line["losses"])} if "losses" in line else line


def _create_folder(path: Path) -> Path:
    """Create the folder `path`, with a number appended if it exists, and return its path."""
    folder, number = path, 1
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            folder = path.with_name(f"{path.name}-{number}")
        else:
            return folder
