"""Stop a training at some of its operations on files, resume it, and compare the run folders.

Runs with `faults.c` loaded by LD_PRELOAD. All trainings run in children of this process, which has
imported and compiled everything, so that one takes a fraction of a second.
"""

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from mnist_accel.commands import main
from mnist_accel.runs import callbacks
from tests.support.crashes.folders import content, differing

# As in faults.c. "kill": the process ends before the operation. "torn": it ends after it, or after
# half of a write. "full": from this operation on, the disk is full. "fail": only this one fails.
MODES = {"kill": 1, "torn": 2, "full": 3, "fail": 4}
KILLED = 137
RUN, EXPECTED = Path("run"), Path("expected")
FAULTS = ctypes.CDLL(None)
FAULTS.count.restype = ctypes.c_long


def in_child(work: Callable[[], int]) -> tuple[int, str]:
    """Return the exit code of a child process that does `work`, and what it wrote to stderr."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        code = 70
        try:
            os.dup2(writer, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, errors="replace") as pipe:
        errors = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), errors


def train(arguments: Sequence[str], *, mode: str | None = None, number: int = 0) -> tuple[int, str]:
    """Run `train` in a child; `mode` happens at operation `number`."""

    def work() -> int:
        if mode is not None:
            FAULTS.arm(MODES[mode], ctypes.c_long(number))
        code = main(["train", *arguments, "--quiet"])
        FAULTS.arm(0, ctypes.c_long(0))
        return code

    return in_child(work)


def count_operations(arguments: Sequence[str]) -> int:
    """Return the number of operations on files of a training."""

    def work() -> int:
        FAULTS.arm(0, ctypes.c_long(0))
        code = main(["train", *arguments, "--quiet"])
        Path("count").write_text(str(FAULTS.count()))
        return code

    code, errors = in_child(work)
    assert code == 0, errors
    return int(Path("count").read_text())


def resume(start: Sequence[str], *, mode: str | None = None, number: int = 0) -> tuple[int, str]:
    """Continue the run as a user does: resume it, or repeat the command if it has not begun."""
    begun = (RUN / "config.json").exists()
    return train(["--resume", str(RUN)] if begun else start, mode=mode, number=number)


def problem_at(start: Sequence[str], *, mode: str, number: int, again: int = 0) -> str:
    """Return what is wrong after a fault at operation `number`; empty if nothing is.

    If `again` is not 0, the resumed training has a fault at this operation as well.
    """
    shutil.rmtree(RUN, ignore_errors=True)
    expected_codes = {KILLED} if mode in ("kill", "torn") else {0, 4}
    code, errors = train(start, mode=mode, number=number)
    if code not in expected_codes or len(errors.splitlines()) > 1:
        return f"exit code {code}: {errors}"
    if again:
        resume(start, mode=mode, number=again)
    code, errors = resume(start)
    if code or errors:
        return f"not resumed, exit code {code}: {errors}"
    join_steps = mode == "fail"
    contents = [content(folder, join_steps=join_steps) for folder in (EXPECTED, RUN)]
    if names := differing(*contents):
        return "differs in " + ", ".join(names)
    return ""


def run() -> None:
    """Check the points given on the command line, and print a JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--step", type=int, required=True, help="check every n-th operation")
    parser.add_argument("--again", type=int, default=0, help="see `problem_at`")
    parser.add_argument("training", nargs="+", help="arguments of `train`")
    args = parser.parse_args()
    callbacks.CHECKPOINT_SECONDS = 0  # a checkpoint at the end of every epoch, however long it took
    start = [*args.training, "--out", str(RUN)]
    with contextlib.redirect_stdout(sys.stderr):
        assert main(["train", *args.training, "--out", str(EXPECTED), "--quiet"]) == 0
    operations = count_operations(start)
    problems = {}
    for offset, mode in enumerate(MODES):  # an offset, so that a sample has more operations
        for number in range(1 + offset, operations + 1, args.step):
            problem = problem_at(start, mode=mode, number=number, again=args.again)
            if problem:
                problems[f"{mode} at {number}"] = problem
    print(json.dumps({"operations": operations, "problems": problems}))


if __name__ == "__main__":
    run()
