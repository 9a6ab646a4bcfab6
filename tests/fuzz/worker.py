"""Runs the cases of one target: `python -m tests.fuzz.worker TARGET FOLDER --seed N --cases N`.

The process has limits of time and memory. A case that breaks a promise stays in the folder.
"""

import argparse
import os
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from mnist_accel.errors import MnistAccelError
from tests.fuzz.limits import check_text, limit_memory, limited_time
from tests.fuzz.targets import TARGETS, Target


def run_case(target: Target, seed: str, folder: Path) -> None:
    """Change a file and read it.

    Raises:
        Exception: the reader broke a promise.
    """
    path = target.write(folder, random.Random(seed))
    with limited_time():
        try:
            target.read(path)
        except MnistAccelError as error:
            check_text(str(error))


def main() -> int:
    """Run cases until the number or the time is reached; return the number of failures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("folder", type=Path, help="folder for the failed cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, help="number of cases; by default that of CI")
    parser.add_argument("--seconds", type=float, help="run for this time in place of --cases")
    args = parser.parse_args()
    target = TARGETS[args.target]
    cases = args.cases or target.cases
    deadline = time.monotonic() + (args.seconds or 0)
    limit_memory()
    failures = number = 0
    while time.monotonic() < deadline if args.seconds else number < cases:
        seed = f"{args.target} {args.seed} {number}"
        number += 1
        folder = Path(tempfile.mkdtemp(dir=args.folder))
        try:
            run_case(target, seed, folder)
        except BaseException as error:
            failures += 1
            print(f"{seed}, files in {folder}: {type(error).__name__}: {str(error)[:500]}")
            traceback.print_exc(limit=-6)
            if failures >= 10 or not isinstance(error, Exception):
                break
        else:
            _remove(folder)
    print(f"{args.target}: {number} cases, {failures} failures", file=sys.stderr)
    return min(failures, 100)


def _remove(folder: Path) -> None:
    for path, folders, files in os.walk(folder, topdown=False):
        for name in files:
            Path(path, name).unlink()
        for name in folders:
            Path(path, name).rmdir()
    folder.rmdir()


if __name__ == "__main__":
    sys.exit(main())
