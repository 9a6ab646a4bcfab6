"""The journal of a run: a line for each thing that it finds, and what they say together.

The first line has the settings, one the machine and who takes part; then there is one for each
measurement and for each pair that has no time, and one for the end. All of a result file that is
ours follows from them, so a run that was interrupted can be reported, too.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.results import FORMAT
from mnist_accel.errors import UsageError

Line: TypeAlias = dict[str, Any]

SUFFIX = ".journal"  # behind the name of the result file
MISSING = ("absent", "failed")


def read_journal(journal: Path) -> list[Line]:
    """Return the lines of a journal.

    Raises:
        UsageError: it cannot be read, or is no journal.
    """
    try:
        # What follows the last line feed is what a killed process was writing.
        lines = journal.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise UsageError(f"{journal} is not the journal of a benchmark run: {error}") from error


def cut_to_whole_lines(journal: Path) -> None:
    """Remove what a killed process was writing, so that the next line does not continue it."""
    os.truncate(journal, journal.read_bytes().rfind(b"\n") + 1)


def findings(lines: Sequence[Line]) -> dict[str, Any]:
    """Return what the lines say, as the part of a result file that is ours.

    Raises:
        ValueError: they end before anything was found.
    """
    run, *others = lines or [{}]
    machine = next((line for line in others if line["kind"] == "machine"), None)
    if machine is None:
        raise ValueError("it ends before anything was measured")
    ends = [line for line in others if line["kind"] == "end"]
    # At the end more libraries are loaded, which the host has facts about.
    host = ends[-1]["host"] if ends else machine["host"]
    load_average = [*machine["host"]["load_average"], *(host["load_average"] if ends else [])]
    measured = [line["benchmark"] for line in others if line["kind"] == "measured"]
    settings = run["settings"]
    return {
        "benchmarks": [one for one in measured if _level(one) != "accuracy"],
        "mnist_accel": {
            "format": FORMAT,
            **{name: settings[name] for name in ("profile", "levels", "passes", "seed", "threads")},
            "complete": bool(ends),
            "started": run["at"],
            "finished": lines[-1]["at"],
            # What was measured is the code that was there at the beginning.
            "host": {
                **host,
                **{name: settings[name] for name in ("commit", "dirty")},
                "load_average": load_average,
            },
            "contenders": machine["contenders"],
            "ceilings": machine["ceilings"],
            **{kind: [_row(line) for line in others if line["kind"] == kind] for kind in MISSING},
            "accuracy": [_curve(one) for one in measured if _level(one) == "accuracy"],
        },
    }


def _row(line: Line) -> dict[str, str]:
    return {key: line[key] for key in ("level", "case", "contender", "reason")}


def _level(benchmark: dict[str, Any]) -> str:
    return str(benchmark["extra_info"]["level"])


def _curve(benchmark: dict[str, Any]) -> dict[str, Any]:
    """Return a training to an accuracy."""
    info = benchmark["extra_info"]
    return {key: value for key, value in info.items() if key not in ("level", "case")}
