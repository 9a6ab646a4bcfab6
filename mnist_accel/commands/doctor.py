"""Diagnose this machine: print what works, what fails, and how to fix it.

Checks the installed packages, the GPU from its driver to a test kernel, the other backends, the
threads and the cache of Numba, the compiled training against eager NumPy, the data, the autotune
cache, and the run folder. Downloads nothing.
A missing GPU is not an error: the exit code is 3 if no backend can run, 4 if the data cannot be
obtained, and otherwise 0. With --explain, the command instead prints how each backend computes a
recipe: the stages of its compiled form, or why it is not compiled.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from mnist_accel.commands.arguments import add_list_of_recipes, recipe_name
from mnist_accel.commands.exit_codes import EXIT_DATA
from mnist_accel.commands.json_output import add_json_argument, print_json
from mnist_accel.diagnostics.doctor import diagnose
from mnist_accel.diagnostics.explain import Explanation, explain
from mnist_accel.diagnostics.findings import BACKEND, DATA, Finding
from mnist_accel.errors import usage_errors
from mnist_accel.util.startup import EXIT_NOT_INSTALLED
from mnist_accel.util.text import count

EXAMPLES: Sequence[str] = ("", "--json", "--explain lenet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    add_json_argument(parser, ", for example for a bug report")
    parser.add_argument(
        "--explain",
        **recipe_name(),
        help="print how this recipe is computed, instead of the diagnosis",
    )
    add_list_of_recipes(parser)


def run(args: argparse.Namespace) -> int:
    """Print the findings, or the explanation of a recipe."""
    if args.explain is not None:
        with usage_errors():  # for example, the layers of a user's recipe do not fit together
            explanation = explain(args.explain)
        if args.json:
            print_json(asdict(explanation))
        else:
            _print_explanation(explanation)
        return 0
    from mnist_accel.console.activity import preparation

    with preparation(sys.stderr, "running checks"):
        findings = diagnose()
    exit_code = _exit_code(findings)
    if args.json:
        report = {"exit_code": exit_code, "findings": [asdict(finding) for finding in findings]}
        print_json(report)
    else:
        _print_findings(findings)
    return exit_code


def _exit_code(findings: Sequence[Finding]) -> int:
    problems = {finding.name for finding in findings if finding.status == "problem"}
    if BACKEND in problems:
        return EXIT_NOT_INSTALLED
    return EXIT_DATA if DATA in problems else 0


def _print_findings(findings: Sequence[Finding]) -> None:
    from mnist_accel.console.tables import print_table

    rows: list[tuple[str, str, str]] = []
    for finding in findings:
        rows.append((finding.status, finding.name, finding.detail))
        if finding.remedy:
            rows.append(("", "", f"-> {finding.remedy}"))
    print_table(("status", "what", "found"), rows, sys.stdout)
    statuses = Counter(finding.status for finding in findings)
    warnings, problems = count(statuses["WARN"], "warning"), count(statuses["problem"], "problem")
    print(f"\n{statuses['ok']} ok, {warnings}, {problems}")


def _print_explanation(explanation: Explanation) -> None:
    from mnist_accel.console.tables import print_table

    print(f"{explanation.model}: {explanation.network}\n{explanation.training}\n")
    ways = [
        (way.backend, "–" if way.max_threads is None else str(way.max_threads), way.how)
        for way in explanation.ways
    ]
    print_table(("backend", "threads", "a training runs"), ways, sys.stdout)
    if explanation.not_lowered:
        print(f"\nThis recipe has no compiled form: {explanation.not_lowered}")
        return
    stages = [
        (str(number), stage.layer, stage.fused, stage.shapes)
        for number, stage in enumerate(explanation.stages, start=1)
    ]
    print()
    print_table(("stage", "compiled", "fused with it", "one image"), stages, sys.stdout)
    remarks = [f"{way.backend}: {remark}" for way in explanation.ways for remark in way.remarks]
    if remarks:
        print("\n" + "\n".join(remarks))
