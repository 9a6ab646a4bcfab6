"""Look at what this machine has, and say what is wrong with the command that mends it.

Walks the packages, the GPU from its driver to a test kernel, the other backends, Numba's threads
and cache, the data and the folder of runs. Fetches nothing. A missing GPU is no error: exit code 0
if a backend can run and the data can be had, else 3 or 4.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from mnist_accel.commands import EXIT_BACKEND, EXIT_DATA
from mnist_accel.diagnosis import BACKEND, DATA, Finding, diagnose


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command accepts to its parser."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, to report bugs")


def run(args: argparse.Namespace) -> int:
    """Print the findings."""
    findings = diagnose()
    exit_code = _exit_code(findings)
    if args.json:
        report = {"exit_code": exit_code, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(report, indent=2))
    else:
        _print_table(findings)
    return exit_code


def _exit_code(findings: Sequence[Finding]) -> int:
    problems = {finding.name for finding in findings if finding.status == "problem"}
    if BACKEND in problems:
        return EXIT_BACKEND
    return EXIT_DATA if DATA in problems else 0


def _print_table(findings: Sequence[Finding]) -> None:
    from mnist_accel.console import print_table

    rows: list[tuple[str, str, str]] = []
    for finding in findings:
        rows.append((finding.status, finding.name, finding.detail))
        if finding.remedy:
            rows.append(("", "", f"-> {finding.remedy}"))
    print_table(("status", "what", "found"), rows, sys.stdout)
    count = Counter(finding.status for finding in findings)
    print(f"\n{count['ok']} ok, {count['WARN']} to know of, {count['problem']} to mend")
