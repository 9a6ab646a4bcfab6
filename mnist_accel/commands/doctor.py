"""Look at what this machine has, and say what is wrong with the command that mends it.

Walks the packages, the GPU from its driver to a test kernel, the other backends, Numba's threads
and cache, the data, the trials and the folder of runs. Fetches nothing. A missing GPU is no error:
exit code 0 if a backend can run and the data can be had, else 3 or 4. With --explain it says
instead how a recipe is computed: on which backend whole epochs are compiled, of which stages, and
why not on the others.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from mnist_accel.commands import EXIT_BACKEND, EXIT_DATA
from mnist_accel.commands.arguments import one_of
from mnist_accel.diagnostics.doctor import BACKEND, DATA, Finding, diagnose
from mnist_accel.recipes.models import RECIPES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command accepts to its parser."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, to report bugs")
    parser.add_argument(
        "--explain", **one_of("model", RECIPES), help="say how this recipe is computed instead"
    )


def run(args: argparse.Namespace) -> int:
    """Print the findings, or the explanation."""
    if args.explain is not None:
        _explain(args.explain, as_json=args.json)
        return 0
    findings = diagnose()
    exit_code = _exit_code(findings)
    if args.json:
        report = {"exit_code": exit_code, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(report, indent=2))
    else:
        _print_table(findings)
    return exit_code


def _explain(model: str, *, as_json: bool) -> None:
    from mnist_accel.console.display import print_table
    from mnist_accel.diagnostics.explain import explain

    explanation = explain(model)
    if as_json:
        print(json.dumps(asdict(explanation), indent=2))
        return
    print(f"{model}: {explanation.network}\n{explanation.training}\n")
    ways = [
        (way.backend, "–" if way.most_threads is None else str(way.most_threads), way.how)
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


def _exit_code(findings: Sequence[Finding]) -> int:
    problems = {finding.name for finding in findings if finding.status == "problem"}
    if BACKEND in problems:
        return EXIT_BACKEND
    return EXIT_DATA if DATA in problems else 0


def _print_table(findings: Sequence[Finding]) -> None:
    from mnist_accel.console.display import print_table

    rows: list[tuple[str, str, str]] = []
    for finding in findings:
        rows.append((finding.status, finding.name, finding.detail))
        if finding.remedy:
            rows.append(("", "", f"-> {finding.remedy}"))
    print_table(("status", "what", "found"), rows, sys.stdout)
    count = Counter(finding.status for finding in findings)
    print(f"\n{count['ok']} ok, {count['WARN']} to know of, {count['problem']} to mend")
