"""Runs commands one after another, each with a time limit, and reports after each command."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from benchmarks.host import ROOT

Outcome: TypeAlias = Literal["passed", "failed", "timed out", "skipped", "not run"]

# Seconds. If less time is left, a stage is not run, because it would time out without a result.
MIN_STAGE_S = 10.0
# Seconds that an interrupted command has to write its results before it is killed.
GRACE_S = 5.0


@dataclass(frozen=True)
class Stage:
    """A command with a time limit.

    Attributes:
        name: name of the stage and of its log file.
        shows: what it means that the stage passes; printed in the report.
        command: the program and its arguments.
        limit_s: time limit in seconds.
        skip_reason: why the stage cannot run on this machine; empty if it can.
        inputs: alternative files that earlier stages write. The first one that exists is appended
            to the command. If `inputs` is not empty and none exists, the stage is skipped.
        is_required: whether the later stages are not run if this one fails. If it times out, it
            has found nothing, and they are run.
    """

    name: str
    shows: str
    command: tuple[str, ...]
    limit_s: float
    skip_reason: str = ""
    inputs: tuple[Path, ...] = ()
    is_required: bool = False


@dataclass(frozen=True)
class Result:
    """The outcome of a stage, with its details.

    Attributes:
        stage: the stage.
        outcome: "skipped" if it cannot run on this machine, "not run" if no time was left.
        seconds: running time.
        detail: the exit code, the time limit or the reason; empty if the stage passed.
    """

    stage: Stage
    outcome: Outcome
    seconds: float = 0.0
    detail: str = ""


# Runs a command, writes its output to a file and returns the exit code, or None after a timeout.
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
    """Run stages in order until all are done or the time is up.

    Args:
        stages: the stages, the most important first, because the last ones may not run.
        folder: folder of the log files.
        total_s: time limit in seconds for all stages together. The last stage may exceed it by
            its grace period.
        report: called with the results of all stages before the first stage and after each stage.
        run: runs a command.
        clock: returns the current time in seconds.

    Returns:
        One result per stage.
    """
    end = clock() + total_s
    results = [Result(stage, "not run") for stage in stages]
    report(results)
    for number, stage in enumerate(stages):
        results[number] = _run_stage(stage, folder, end - clock(), run, clock)
        report(results)
        if stage.is_required and results[number].outcome == "failed":
            break
    return results


def _run_stage(
    stage: Stage, folder: Path, left_s: float, run: Runner, clock: Callable[[], float]
) -> Result:
    if stage.skip_reason:
        return Result(stage, "skipped", detail=stage.skip_reason)
    existing = [str(path) for path in stage.inputs if path.exists()][:1]
    if stage.inputs and not existing:
        names = " or ".join(path.name for path in stage.inputs)
        return Result(stage, "skipped", detail=f"{names} not found")
    limit_s = min(stage.limit_s, left_s)
    if limit_s < MIN_STAGE_S:
        return Result(stage, "not run", detail=f"only {max(0, left_s):.0f} s were left")
    begin = clock()
    code = run((*stage.command, *existing), folder / f"{stage.name}.log", limit_s)
    seconds = clock() - begin
    if code is None:
        return Result(stage, "timed out", seconds, f"limit {limit_s:.0f} s")
    if code:
        return Result(stage, "failed", seconds, f"exit code {code}")
    return Result(stage, "passed", seconds)


def run_command(command: Sequence[str], log: Path, limit_s: float) -> int | None:
    """Run a command and write its output to a file; stop it and its children at the time limit.

    The command first receives SIGINT, so that it can write its results. If it still runs after
    `GRACE_S`, it is killed.

    Returns:
        The exit code; None after a timeout.
    """
    # CuPy must not use TF32, even if the user's environment enables it.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "CUPY_TF32": "0"}
    print(f"{log.stem}: running, at most {limit_s:.0f} s", file=sys.stderr, flush=True)
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  # the commands come from `plan`
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
            _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Stop the processes of a process group that still run: a command and its children."""
    if sys.platform == "win32":  # cannot signal a group
        process.kill()
        return
    for signal_number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, signal_number)
        except ProcessLookupError:
            return
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            continue
