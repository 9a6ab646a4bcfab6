"""Runs Python code with AddressSanitizer, which checks the memory accesses of emulated kernels."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def run_under_sanitizer(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process that has loaded AddressSanitizer.

    AddressSanitizer surrounds each allocation, including those of NumPy, with forbidden bytes. An
    access to them ends the process with a report on stderr.
    """
    library = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={
            **os.environ,
            "LD_PRELOAD": library,
            "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        check=False,
    )
