"""Acceptance run on an NVIDIA GPU: checks everything that needs one, within 9 minutes.

    make gpu-acceptance                        all stages
    make gpu-acceptance ARGS="--only tests"    one stage

The stages are a check of packages and data, a second of training per recipe, tests, times of
launches and barriers, the accuracy of every recipe, benchmarks together with PyTorch, comparisons
of kernels, and NVIDIA's sanitizers if they are installed. All output goes to a folder in
benchmarks/results. Its report.md and the archive of the folder are rewritten after each stage, so a
run that is stopped leaves the results so far. Exit code: 0 if every stage that can run on this
machine passed, 1 if not, 2 for wrong usage, 3 if no GPU can be used. `make` returns 2 for each kind
of failure. offline.md describes machines without a network.
"""

import argparse
import io
import re
import signal
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path

from backends import get_backend
from benchmarks.gpu.plan import plan
from benchmarks.gpu.stages import GRACE_S, Result, Runner, Stage, run_command, run_stages
from benchmarks.host import ROOT, host_facts
from benchmarks.session.settings import select
from mnist_accel.commands.argument_types import number
from mnist_accel.commands.dispatcher import guarded
from mnist_accel.commands.parser import Parser
from mnist_accel.errors import UsageError
from mnist_accel.util.files import write_atomically
from mnist_accel.util.text import count

PROG = "python -m benchmarks.gpu"
RESULTS = ROOT / "benchmarks" / "results"
# 9 minutes, minus the time for the start, for stopping the last stage and for the report.
TOTAL_S = 9 * 60 - 2 * GRACE_S - 20
PRINTED_LINES = 15  # of the log of a stage that failed
PRECISION = (
    "All arithmetic is float32 or float64; tensor cores multiply only where products are exact. "
    "TF32 is disabled in CuPy "
    "(`CUPY_TF32=0`) and in PyTorch, for matrix products and convolutions."
)


def main(
    argv: Sequence[str] | None = None,
    *,
    make_plan: Callable[[Path], list[Stage]] = plan,
    run: Runner = run_command,
) -> int:
    """Run the stages and return the exit code.

    Args:
        argv: the arguments; those of the process if None.
        make_plan: returns the stages, given the folder of the results.
        run: runs a command.
    """
    parser = Parser(prog=PROG, description=__doc__, epilog="")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to create for the results")
    parser.add_argument(
        "--archive", type=Path, metavar="FILE", help="archive of the results (default: DIR.tar.gz)"
    )
    parser.add_argument("--only", metavar="STAGE,STAGE", help="run only these stages")
    parser.add_argument(
        "--seconds",
        **number("S", above=0),
        default=TOTAL_S,
        help="time limit for all stages together, in seconds (default: %(default)g)",
    )
    return guarded(lambda: _run(parser.parse_args(argv), make_plan, run), prog=PROG)


def exit_on_sigterm() -> None:
    """Make SIGTERM, which batch systems send, raise `SystemExit`, which stops the current stage."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def _run(args: argparse.Namespace, make_plan: Callable[[Path], list[Stage]], run: Runner) -> int:
    """Run the selected stages and return the exit code."""
    facts = _facts()
    folder: Path = args.out or RESULTS / f"{date.today():%Y-%m-%d}-{_slug(facts['GPU'])}"
    stages = make_plan(folder.resolve())
    if args.only is not None:
        chosen = select("stage", args.only, [stage.name for stage in stages])
        stages = [stage for stage in stages if stage.name in chosen]
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise UsageError(f"{folder} exists already; choose another --out") from error
    except OSError as error:
        raise UsageError(f"cannot create {folder}: {error.strerror or error}") from error
    archive = args.archive or folder.with_name(f"{folder.name}.tar.gz")
    results = run_stages(
        stages,
        folder=folder,
        total_s=args.seconds,
        report=partial(_report, facts, folder, archive),
        run=run,
    )
    print(f"{_summary(results)}; the report is {folder / 'report.md'}, packed in {archive}")
    return 0 if all(result.outcome in ("passed", "skipped") for result in results) else 1


def _report(facts: dict[str, str], folder: Path, archive: Path, results: Sequence[Result]) -> None:
    """Write the report, pack the folder, and print the result of the last stage to stderr."""
    write_atomically(folder / "report.md", _report_text(facts, results, folder).encode())
    _pack(folder, archive)
    finished = [result for result in results if result.outcome != "not run" or result.detail]
    if not finished:
        return
    last = finished[-1]
    detail = f" ({last.detail})" if last.detail else ""
    print(f"{last.stage.name}: {last.outcome}{detail}, {last.seconds:.0f} s", file=sys.stderr)
    if last.outcome in ("failed", "timed out"):
        text = (folder / f"{last.stage.name}.log").read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines()[-PRINTED_LINES:]:
            print(f"    {line}", file=sys.stderr)


def _pack(folder: Path, archive: Path) -> None:
    """Pack the results so far as one archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        file.add(folder, arcname=folder.name)
    write_atomically(archive, packed.getvalue())


def _facts() -> dict[str, str]:
    """Return the facts about GPU and software that the measurements depend on."""
    device = get_backend("cupy").device_info()
    host = host_facts()
    return {
        "GPU": device.name,
        "GPU memory": f"{(device.memory_total_bytes or 0) / 1e9:.0f} GB",
        "driver": str(host.gpu_driver),
        **{name.replace("_", " "): version for name, version in device.libraries.items()},
        "PyTorch": host.versions.get("torch", "not installed"),
        "CPU": f"{host.cpu}, {count(host.threads, 'core')}",
        "commit": f"{host.commit}{', changed' if host.dirty else ''}",
        "date": f"{date.today():%Y-%m-%d}",
    }


def _slug(device: str) -> str:
    """Return the name of a GPU as part of a file name, such as "nvidia-h200"."""
    return re.sub(r"[^a-z0-9]+", "-", device.partition(",")[0].lower()).strip("-")


def _report_text(facts: Mapping[str, str], results: Sequence[Result], folder: Path) -> str:
    """Return the report as Markdown. It contains the Markdown tables of the logs in `folder`."""
    lines = ["# Acceptance run on a GPU", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {fact} |" for name, fact in facts.items()]
    lines += ["", PRECISION, "", f"{_summary(results)}.", ""]
    lines += ["| stage | shows | outcome | seconds |", "|---|---|---|---:|"]
    for result in results:
        stage = result.stage
        log = folder / f"{stage.name}.log"
        name = f"[{stage.name}]({log.name})" if log.exists() else stage.name
        outcome = f"{result.outcome}: {result.detail}" if result.detail else result.outcome
        seconds = f"{result.seconds:.0f}" if result.seconds else ""
        lines.append(f"| {name} | {stage.shows} | {outcome} | {seconds} |")
    for result in results:
        if table := _tables_in(folder / f"{result.stage.name}.log"):
            lines += ["", f"## {result.stage.name.capitalize()}", "", *table]
    return "\n".join(lines) + "\n"


def _summary(results: Sequence[Result]) -> str:
    """Return the number of stages per outcome, such as "3 passed, 1 failed"."""
    counts = Counter(result.outcome for result in results)
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def _tables_in(log: Path) -> list[str]:
    """Return the lines of the Markdown tables in a log."""
    if not log.exists():
        return []
    text = log.read_text(encoding="utf-8", errors="replace")
    return [line for line in text.splitlines() if line.startswith(("| ", "|--"))]


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
