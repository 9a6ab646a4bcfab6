"""Runs Python code that watches every access of emulated kernels to memory."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def under_sanitizer(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process that has loaded AddressSanitizer.

    It puts a forbidden zone around every piece of memory, those of NumPy's arrays too, and ends the
    process with a report when one is touched.
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
