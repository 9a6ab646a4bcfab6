"""What a run of the benchmarks has found: in a journal at once, in a result file at the end.

The journal has a line for the run and one for every measurement, so that a run can be interrupted
and continued. The result file is the JSON of pytest-benchmark, completed by a key of our own,
`mnist_accel`.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.ceilings import measure_ceilings
from benchmarks.contenders import contenders
from benchmarks.contenders.base import Contender
from benchmarks.host import host_facts, usable_cores
from mnist_accel.errors import UsageError

FORMAT = 1


@dataclass
class Record:
    """The findings of a run.

    Attributes:
        profile: which cases there are.
        levels: those of them that are measured.
        passes: how often each pair is measured.
        seed: of the order.
        journal: file that everything is added to at once; None for none. What it holds already is
            part of the run, and must be of one with the same settings.

    Raises:
        UsageError: the journal is of another run, or none at all.
    """

    profile: str
    levels: Sequence[str]
    passes: int
    seed: int
    journal: str | None
    _lines: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.journal is not None and Path(self.journal).exists():
            self._lines = _read(Path(self.journal))
        if not self._lines:
            beginning = {"started": _now(), "load_average": list(os.getloadavg())}
            self._append({"kind": "run", "settings": self._settings, **beginning})
        settings = self._lines[0].get("settings")
        if settings != self._settings:
            raise UsageError(
                f"{self.journal} is of a run with {settings}, not {self._settings}; "
                "continue it with the settings it began with"
            )

    @property
    def _settings(self) -> dict[str, Any]:
        return {
            "profile": self.profile,
            "levels": list(self.levels),
            "passes": self.passes,
            "seed": self.seed,
        }

    @property
    def done(self) -> set[str]:
        """Names of the tests that need not run again."""
        return {line["test"] for line in self._lines if line["kind"] == "measured"}

    @property
    def steps(self) -> dict[tuple[str, str], int]:
        """Updates in an epoch of each training that was measured, by case and contender."""
        measured = [
            line["benchmark"]["extra_info"] for line in self._lines if line["kind"] == "measured"
        ]
        return {
            (one["case"], one["contender"]): one["steps"]
            for one in measured
            if one["level"] == "training"
        }

    def add(self, test: str, benchmark: dict[str, Any]) -> None:
        """Record a measurement, as pytest-benchmark describes it."""
        # Cases and contenders are objects; their names say as much.
        params = {key: getattr(one, "name", one) for key, one in benchmark["params"].items()}
        benchmark = {**benchmark, "params": params}
        self._append({"kind": "measured", "test": test, "benchmark": benchmark})

    def absent(self, level: str, case: str, contender: Contender, reason: str) -> None:
        """Record that a contender cannot do a case here."""
        self._append(_row("absent", level, case, contender, reason))

    def failed(self, level: str, case: str, contender: Contender, reason: str) -> None:
        """Record that a contender does not compute what it should."""
        self._append(_row("failed", level, case, contender, reason))

    def complete(self, document: dict[str, Any], *, came_to_end: bool) -> None:
        """Replace the measurements of a result file by all of the journal, and add all else."""
        run = self._lines[0]
        measured = [line["benchmark"] for line in self._lines if line["kind"] == "measured"]
        document["benchmarks"] = [one for one in measured if _level(one) != "accuracy"]
        names = {one["extra_info"]["contender"] for one in measured}
        names |= {line["contender"] for line in self._lines if "contender" in line}
        host = host_facts()
        host["load_average"] = [*run["load_average"], *host["load_average"]]
        document["mnist_accel"] = {
            "format": FORMAT,
            **self._settings,
            "threads": usable_cores(),
            "complete": came_to_end,
            "started": run["started"],
            "finished": _now(),
            "host": host,
            "contenders": {
                name: _describe(one) for name, one in contenders().items() if name in names
            },
            "ceilings": asdict(measure_ceilings()),
            "absent": self._rows("absent"),
            "failed": self._rows("failed"),
            "accuracy": [_curve(one) for one in measured if _level(one) == "accuracy"],
        }

    def _rows(self, kind: str) -> list[dict[str, str]]:
        """Return the absent or failed pairs, each once though every pass names it."""
        rows = (
            {key: line[key] for key in ("level", "case", "contender", "reason")}
            for line in self._lines
            if line["kind"] == kind
        )
        return list({json.dumps(row): row for row in rows}.values())

    def _append(self, line: dict[str, Any]) -> None:
        self._lines.append(line)
        if self.journal is not None:
            with Path(self.journal).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def _row(kind: str, level: str, case: str, contender: Contender, reason: str) -> dict[str, str]:
    return {
        "kind": kind,
        "level": level,
        "case": case,
        "contender": contender.name,
        "reason": reason,
    }


def _describe(contender: Contender) -> dict[str, Any]:
    versions = contender.versions() if contender.availability().ok else {}
    return {
        "is_peer": contender.is_peer,
        "device": contender.device(),
        "versions": versions,
        "threads": usable_cores(),
    }


def _level(benchmark: dict[str, Any]) -> str:
    return str(benchmark["extra_info"]["level"])


def _curve(benchmark: dict[str, Any]) -> dict[str, Any]:
    """Return a training to an accuracy."""
    keys = ("network", "contender", "is_peer", "batch", "seed", "seconds", "accuracy")
    return {key: benchmark["extra_info"][key] for key in keys}


def _read(journal: Path) -> list[dict[str, Any]]:
    try:
        # What follows the last line feed is what a killed process was writing.
        lines = journal.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise UsageError(f"{journal} is not the journal of a benchmark run: {error}") from error


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
