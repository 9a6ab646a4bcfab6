"""What a run of the benchmarks has found: in a journal at once, in a result file at the end.

With the journal a run can be interrupted and continued. The result file is the JSON of
pytest-benchmark, completed by a key of our own, `mnist_accel`.
"""

import gzip
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.ceilings import measure_ceilings
from benchmarks.contenders import contenders
from benchmarks.contenders.base import Contender
from benchmarks.host import host_facts, usable_cores
from benchmarks.journal import MISSING, Line, cut_to_whole_lines, findings, read_journal
from benchmarks.settings import Settings, Wishes, must_agree, must_be_here, settle
from mnist_accel.errors import UsageError


@dataclass
class Record:
    """The findings of a run.

    Attributes:
        settings: of the run.
        journal: file that everything is added to at once; None for none.
    """

    settings: Settings
    journal: Path | None = None
    _lines: list[Line] = field(default_factory=list)

    @classmethod
    def open(cls, wishes: Wishes, journal: Path | None) -> "Record":
        """Begin a run, or go on with that of the journal.

        Raises:
            UsageError: there is nothing to measure; or the journal is of another run, or none.
        """
        lines = [] if journal is None or not journal.exists() else read_journal(journal)
        if journal is None or not lines:
            record = cls(settle(wishes), journal)
            record._append({"kind": "run", "settings": asdict(record.settings)})
            return record
        begun = begun_with(journal)
        must_agree(begun, wishes, journal)
        must_be_here(begun, journal)
        cut_to_whole_lines(journal)
        return cls(begun, journal, lines)

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

    def begin(self, level: str, case: str, contender: str) -> None:
        """Record what is done now, in case that it ends the process."""
        self._append({"kind": "begun", "level": level, "case": case, "contender": contender})

    def absent(self, level: str, case: str, contender: str, reason: str) -> None:
        """Record that a contender cannot do a case here."""
        self._append_once(_row("absent", level, case, contender, reason))

    def failed(self, level: str, case: str, contender: str, reason: str) -> None:
        """Record that a contender does not compute what it should, or breaks down."""
        self._append_once(_row("failed", level, case, contender, reason))

    def missing(self, level: str, case: str, contender: str) -> tuple[str, str] | None:
        """Return "absent" or "failed", and the reason, of a pair that an earlier pass found so."""
        for line in self._lines:
            if line["kind"] in MISSING and _pair(line) == (level, case, contender):
                return line["kind"], line["reason"]
        return None

    def describe(self) -> None:
        """Record the machine and who takes part, unless an earlier part of the run has done so."""
        if any(line["kind"] == "machine" for line in self._lines):
            return
        everybody = (*self.settings.contenders, *self.settings.left_out)
        ceilings = {name: asdict(best) for name, best in measure_ceilings().items()}
        self._append(
            {
                "kind": "machine",
                "host": host_facts(),
                "ceilings": ceilings,
                "contenders": {
                    name: _describe(one) for name, one in contenders().items() if name in everybody
                },
            }
        )

    def end(self) -> None:
        """Record that all is measured, once."""
        if self._lines[-1]["kind"] != "end":
            self._append({"kind": "end", "host": host_facts()})

    def complete(self, document: dict[str, Any]) -> None:
        """Replace the measurements of a result file by all of the journal, and add all else."""
        self.describe()
        document |= findings(self._lines)

    def _append_once(self, line: Line) -> None:
        """Add what every pass finds anew."""
        if not any(line.items() <= known.items() for known in self._lines):
            self._append(line)

    def _append(self, line: Line) -> None:
        line = {**line, "at": _now()}
        self._lines.append(line)
        if self.journal is not None:
            with self.journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def begun_with(journal: Path) -> Settings:
    """Return the settings that the run of a journal began with.

    Raises:
        UsageError: it holds no run, or cannot be read.
    """
    lines = read_journal(journal)
    if not lines:
        raise UsageError(f"{journal} holds nothing to go on with; remove it, and begin anew")
    try:
        # JSON has lists only.
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in lines[0]["settings"].items()
        }
        return Settings(**values)
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(
            f"{journal} is not a journal of this version of the suite: its first line has no "
            "settings that are known; remove it, and begin anew"
        ) from error


def blame_the_last(journal: Path) -> None:
    """Record that what was begun last, if it did not end, has ended the process."""
    cut_to_whole_lines(journal)
    lines = read_journal(journal)
    if lines[-1]["kind"] == "begun":
        record = Record(begun_with(journal), journal, lines)
        record.failed(*_pair(lines[-1]), "it ended the process")


def write_results(path: Path, document: dict[str, Any]) -> None:
    """Write a result file, compressed if its name ends in .gz: all of it, or nothing.

    Raises:
        UsageError: it cannot be written.
    """
    content = json.dumps(document, indent=4).encode()
    unfinished = path.with_name(f"{path.name}.part")
    try:
        unfinished.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        unfinished.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def _row(kind: str, level: str, case: str, contender: str, reason: str) -> dict[str, str]:
    return {"kind": kind, "level": level, "case": case, "contender": contender, "reason": reason}


def _pair(line: dict[str, Any]) -> tuple[str, str, str]:
    return line["level"], line["case"], line["contender"]


def _describe(contender: Contender) -> dict[str, Any]:
    versions = contender.versions() if contender.availability().ok else {}
    return {
        "is_peer": contender.is_peer,
        "device": contender.device(),
        "versions": versions,
        "threads": usable_cores(),
    }


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
