"""Runs commands one after the other, each within its time, and reports after each of them."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from benchmarks.host import ROOT

Outcome: TypeAlias = Literal["passed", "failed", "cut", "missing", "not reached"]

# A stage is not begun with less: it would be cut before it shows anything.
LEAST_S = 10.0
# How long a command that is cut has to write down what it has.
GRACE_S = 5.0


@dataclass(frozen=True)
class Stage:
    """A command, and the time that it may take.

    Attributes:
        name: of the stage, and of its log.
        shows: what is known when it has passed.
        command: the program and its arguments.
        budget_s: what it may take at most.
        missing: why it cannot run here; empty where it can.
        reads: what a stage before it leaves: the first of these files that is there is the last
            argument of the command.
    """

    name: str
    shows: str
    command: tuple[str, ...]
    budget_s: float
    missing: str = ""
    reads: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Result:
    """How a stage ended.

    Attributes:
        stage: which.
        outcome: "cut" where its time was up; "missing" where it cannot run here.
        seconds: that it took.
        detail: the exit code, or the reason, in words; empty where it passed.
    """

    stage: Stage
    outcome: Outcome
    seconds: float = 0.0
    detail: str = ""


# Runs a command with its output in a file; returns the exit code, or None where the time was up.
Runner: TypeAlias = Callable[[Sequence[str], Path, float], int | None]


def run_stages(
    stages: Sequence[Stage],
    *,
    folder: Path,
    total_s: float,
    report: Callable[[Sequence[Result]], None],
    run: Runner,
    clock: Callable[[], float] = time.monotonic,
) -> list[Result]:
    """Run stages in their order until they are done or the time is up.

    Args:
        stages: the most valuable first.
        folder: where each leaves its log.
        total_s: what all of them may take together; one that is cut takes a few seconds more.
        report: is told, before the first stage and after each, how all of them stand.
        run: runs a command.
        clock: seconds from any beginning.

    Returns:
        A result for each stage.
    """
    end = clock() + total_s
    results = [Result(stage, "not reached") for stage in stages]
    report(results)
    for number, stage in enumerate(stages):
        results[number] = _run_stage(stage, folder, end - clock(), run, clock)
        report(results)
    return results


def _run_stage(
    stage: Stage, folder: Path, left_s: float, run: Runner, clock: Callable[[], float]
) -> Result:
    """Run a stage, if it can run and there is time."""
    if stage.missing:
        return Result(stage, "missing", detail=stage.missing)
    there = [str(path) for path in stage.reads if path.exists()][:1]
    if stage.reads and not there:
        return Result(stage, "missing", detail=f"there is no {stage.reads[0].name}")
    limit = min(stage.budget_s, left_s)
    if limit < LEAST_S:
        return Result(stage, "not reached", detail=f"{max(0, left_s):.0f} s were left")
    begin = clock()
    code = run((*stage.command, *there), folder / f"{stage.name}.log", limit)
    seconds = clock() - begin
    if code is None:
        return Result(stage, "cut", seconds, f"its {limit:.0f} s were up")
    if code:
        return Result(stage, "failed", seconds, f"exit code {code}")
    return Result(stage, "passed", seconds)


def run_command(command: Sequence[str], log: Path, limit_s: float) -> int | None:
    """Run a command, with what it prints in a file; end it, and all it has begun, after its time.

    It is interrupted as by Ctrl-C first, so that it can write down what it has.

    Returns:
        Its exit code; None where its time was up.
    """
    # Nothing here uses TF32, whatever the user has set for programs of his own.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "CUPY_TF32": "0"}
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  # the commands are those of `plan`
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process with all that it has begun, which is its own group; nothing if it has ended."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            continue
