"""The journal of a run: one line of JSON for each finding, written as soon as it is known.

A run that was interrupted continues from its journal and can be reported from it. The result file
of a complete run is made of its journal.
"""

import importlib.metadata
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct, field

from benchmarks.storage.schema import (
    FORMAT,
    Ceilings,
    ContenderFacts,
    Device,
    Host,
    RowKey,
)
from mnist_accel.errors import DataError, UsageError, file_errors
from mnist_accel.util.input_files import read_regular
from mnist_accel.util.schema import decode_json

SUFFIX = ".journal"  # appended to the name of the result file
WITH_STEPS = ("training", "population")  # levels in which the first process chooses the steps
MAX_BYTES = 2**25  # largest journal or unpacked result file: fifty times the size of a full run


class RunSettings(Struct, frozen=True):
    """The settings that all measurements of a run share.

    Attributes:
        profile: name of the choice of cases.
        levels: the measured levels.
        contenders: the measured contenders.
        left_out: contenders that only full runs measure.
        passes: how many times each row is measured.
        processes: the passes are divided among this number of fresh processes per contender.
        seed: seed of the order of the measurements.
        threads: cores that each contender may use.
        commit: commit of the code; None if unknown.
        dirty: whether the code has uncommitted changes; None if unknown.
    """

    profile: Literal["quick", "full"]
    levels: tuple[str, ...]
    contenders: tuple[str, ...]
    left_out: tuple[str, ...]
    passes: int
    seed: int
    threads: int
    commit: str | None
    dirty: bool | None
    processes: int = 1

    @property
    def passes_per_process(self) -> int:
        """Number of passes that one process measures."""
        return -(-self.passes // self.processes)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


class _Line(Struct, frozen=True, kw_only=True, tag_field="kind"):
    """A line of a journal; `at` is the time at which it was written."""

    at: str = field(default_factory=_now)


class RunStarted(_Line, frozen=True, tag="run"):
    """The first line."""

    settings: RunSettings


class Machine(_Line, frozen=True, tag="machine"):
    """The machine and the contenders, written before the first measurement.

    Attributes:
        machine_info: what pytest-benchmark states about the machine.
        commit_info: what it states about the code.
    """

    host: Host
    ceilings: Mapping[Device, Ceilings]
    contenders: Mapping[str, ContenderFacts]
    machine_info: dict[str, Any] = field(default_factory=dict)
    commit_info: dict[str, Any] = field(default_factory=dict)


class RowStarted(_Line, frozen=True, tag="begun"):
    """A row whose measurement starts; written only by release 0.1.0."""

    level: str
    case: str
    contender: str

    @property
    def key(self) -> RowKey:
        """Level, case and contender."""
        return self.level, self.case, self.contender


class Measured(_Line, frozen=True, tag="measured"):
    """A measurement, as pytest-benchmark describes it, and the node ID of its test."""

    test: str
    benchmark: dict[str, Any]

    def __post_init__(self) -> None:
        info = self.benchmark.get("extra_info")
        names = ("level", "case", "contender")
        if not isinstance(info, dict) or not all(isinstance(info.get(n), str) for n in names):
            raise ValueError("`benchmark.extra_info` must name a level, a case and a contender")
        if info["level"] in WITH_STEPS and not isinstance(info.get("steps"), int):
            raise ValueError("`benchmark.extra_info.steps` must be an integer")


class Absent(RowStarted, frozen=True, tag="absent"):
    """A row that cannot be measured on this machine."""

    reason: str


class Failed(RowStarted, frozen=True, tag="failed"):
    """A row with a wrong result or an error."""

    reason: str


class Extended(_Line, frozen=True, tag="extended"):
    """Cases (level, name) that one more group of processes measures, because they are undecided."""

    cases: tuple[tuple[str, str], ...]


class RunEnded(_Line, frozen=True, tag="end"):
    """The last line of a complete run."""

    host: Host


Line: TypeAlias = (
    RunStarted | Machine | RowStarted | Measured | Absent | Failed | Extended | RunEnded
)
_SETTINGS_OF_RUN = ("profile", "levels", "passes", "seed", "threads")


class Journal:
    """The findings of a run.

    Args:
        settings: settings of the run.
        path: the file to which each line is appended; None to keep the lines in memory only.
        lines: the lines that the file contains already.
    """

    def __init__(
        self, settings: RunSettings, path: Path | None = None, lines: Sequence[Line] = ()
    ) -> None:
        self.settings = settings
        self.path = path
        self._lines = list(lines)
        if not lines:
            self._append(RunStarted(settings=settings))

    @classmethod
    def read(cls, path: Path) -> "Journal":
        """Read a journal.

        Raises:
            UsageError: the file cannot be read, is empty or is not a journal.
        """
        try:
            with file_errors(f"read {path}"):
                # The text after the last line feed was being written when the process was killed.
                texts = read_regular(path, max_bytes=MAX_BYTES).split(b"\n")[:-1]
            lines: list[Line] = [
                decode_json(
                    text,
                    Line,  # type: ignore[arg-type]  # a union
                    name=f"{path}, line {number},",
                    kind="a line of a journal of `python -m benchmarks run`",
                )
                for number, text in enumerate(texts, start=1)
            ]
        except DataError as error:
            raise UsageError(str(error)) from error
        if not lines or not isinstance(lines[0], RunStarted):
            raise UsageError(f"{path} contains no run; remove it and start a new run")
        return cls(lines[0].settings, path, lines)

    def truncate(self) -> None:
        """Remove an incomplete last line from the file, so that the next line starts a new one."""
        assert self.path is not None
        os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)

    @property
    def measured_tests(self) -> set[str]:
        """Node IDs of the tests that need not run again."""
        return {line.test for line in self._lines if isinstance(line, Measured)}

    @property
    def steps(self) -> dict[tuple[str, str], int]:
        """Updates per epoch of each measured training and population, by case and contender."""
        return {
            (info["case"], info["contender"]): info["steps"]
            for info in (benchmark["extra_info"] for benchmark in self._benchmarks())
            if info["level"] in WITH_STEPS
        }

    @property
    def barriers_ns(self) -> list[float]:
        """Nanoseconds of the barriers before the turns, where they were measured."""
        measured = (one["extra_info"].get("barrier_ns") for one in self._benchmarks())
        return [ns for ns in measured if ns is not None]

    @property
    def extensions(self) -> list[tuple[tuple[str, str], ...]]:
        """The cases (level, name) of each further group of processes."""
        return [line.cases for line in self._lines if isinstance(line, Extended)]

    @property
    def has_machine(self) -> bool:
        """Whether the machine has been described."""
        return any(isinstance(line, Machine) for line in self._lines)

    def missing(self, row: RowKey) -> Absent | Failed | None:
        """Return the line that states why a row has no time; None if there is no such line."""
        lines = (line for line in self._lines if isinstance(line, Absent | Failed))
        return next((line for line in lines if line.key == row), None)

    def add(self, line: Line) -> None:
        """Record a finding; a row that is absent, or failed for the same reason, is kept once."""
        if isinstance(line, Absent | Failed):
            known = (row for row in self._lines if isinstance(row, type(line)))
            if any(row.key == line.key and row.reason == line.reason for row in known):
                return
        self._append(line)

    def measured(self, test: str, benchmark: Mapping[str, Any]) -> None:
        """Record a measurement of pytest-benchmark."""
        # Cases and contenders are objects; their names are enough.
        params = {name: getattr(one, "name", one) for name, one in benchmark["params"].items()}
        self.add(Measured(test=test, benchmark={**benchmark, "params": params}))

    def end(self, host: Host) -> None:
        """Record that the run is complete."""
        if not isinstance(self._lines[-1], RunEnded):
            self._append(RunEnded(host=host))

    def document(self) -> dict[str, Any]:
        """Return the content of the result file, in the format of pytest-benchmark.

        Raises:
            UsageError: nothing has been measured.
        """
        machine = next((line for line in self._lines if isinstance(line, Machine)), None)
        if machine is None:
            raise UsageError(f"{self.path} ends before the first measurement")
        settings, host = msgspec.to_builtins(self.settings), msgspec.to_builtins(machine.host)
        # A run that was extended has several such lines.
        ended = self._lines[-1] if isinstance(self._lines[-1], RunEnded) else None
        if ended is not None:  # by then more libraries are loaded, so more facts are known
            load_average = [*machine.host.load_average, *ended.host.load_average]
            host = {**msgspec.to_builtins(ended.host), "load_average": load_average}
        # The measured code is the code at the start of the run.
        host |= {name: settings[name] for name in ("commit", "dirty")}
        benchmarks = list(self._benchmarks())
        curves = [one["extra_info"] for one in benchmarks if _level(one) == "accuracy"]
        return {
            "machine_info": machine.machine_info,
            "commit_info": machine.commit_info,
            "datetime": self._lines[0].at,
            "version": importlib.metadata.version("pytest-benchmark"),
            "benchmarks": [one for one in benchmarks if _level(one) != "accuracy"],
            "mnist_accel": {
                "format": FORMAT,
                **{name: settings[name] for name in _SETTINGS_OF_RUN},
                "complete": ended is not None,
                "started": self._lines[0].at,
                "finished": self._lines[-1].at,
                "host": host,
                "contenders": msgspec.to_builtins(machine.contenders),
                "ceilings": msgspec.to_builtins(machine.ceilings),
                "absent": self._rows(Absent),
                "failed": self._rows(Failed),
                "accuracy": [
                    {name: fact for name, fact in curve.items() if name not in ("level", "case")}
                    for curve in curves
                ],
            },
        }

    def _benchmarks(self) -> Iterator[dict[str, Any]]:
        return (line.benchmark for line in self._lines if isinstance(line, Measured))

    def _rows(self, kind: type[Absent | Failed]) -> list[dict[str, str]]:
        names = ("level", "case", "contender", "reason")
        lines = (line for line in self._lines if isinstance(line, kind))
        return [{name: getattr(line, name) for name in names} for line in lines]

    def _append(self, line: Line) -> None:
        self._lines.append(line)
        if self.path is not None:
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")


def _level(benchmark: Mapping[str, Any]) -> str:
    return str(benchmark["extra_info"]["level"])
