"""Starts the benchmarks in new processes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


QUICK = ("run", "--levels", "operations", "--passes", "1")


def start_python(*command, path="", **options):
    # pytest-benchmark is disabled in workers of pytest-xdist, which these variables identify.
    env = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        env=env | {"PYTHONPATH": f"{ROOT}:{path}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **{"cwd": ROOT, **options},
    )


def run_benchmarks(*arguments, **options):
    return start_python("benchmarks", *arguments, **options)
