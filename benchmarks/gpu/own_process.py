"""Runs a part of a program in a process of its own, because a GPU that fails fails for the process.

After an error such as an illegal address, every later call of the same process fails; a kernel that
waits forever stops it. The other parts then still give results.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.host import ROOT


def rows_of(
    module: str, *arguments: str, option: str, limit_s: float
) -> tuple[list[dict[str, Any]], str]:
    """Run a program that writes a list of rows as JSON.

    Args:
        module: module of the program.
        *arguments: its arguments.
        option: its option for the JSON file.
        limit_s: time limit in seconds.

    Returns:
        The rows that it has written, and why it ended early; an empty string if it did not.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.json")
        command = [sys.executable, "-m", module, *arguments, option, str(file)]
        problem = ""
        try:
            done = subprocess.run(  # noqa: S603  # a program of this project
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace", timeout=limit_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            problem = f"no result within {limit_s:g} s"
        rows = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
        if not problem and (done.returncode < 0 or (done.returncode and not rows)):
            lines = done.stdout.strip().splitlines() or ["no output"]
            problem = f"exit code {done.returncode}: {lines[-1]}"
        return rows, problem
