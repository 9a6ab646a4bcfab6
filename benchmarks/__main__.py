"""The benchmarks' command line: `python -m benchmarks run|report|compare|agree`."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeAlias

from benchmarks.report import report_command
from benchmarks.report.agreement import agree_command
from benchmarks.report.comparison import compare_command
from benchmarks.session.runner import PROG, run_suite
from benchmarks.session.settings import (
    MINUTES,
    ONLY_NAMED,
    PASSES,
    PROCESSES,
    SLOW_TO_COMPILE,
    RunRequest,
)
from benchmarks.suite.cases import LEVELS, Profile
from mnist_accel.commands.argument_types import integer
from mnist_accel.commands.dispatcher import guarded
from mnist_accel.commands.parser import Parser

Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"

EXIT_CODES = """exit codes:
  0    done
  1    a contender failed, a backend is slower than --fail-over allows, or two runs disagree
  2    wrong usage, or a file that cannot be read or written
  3    a package is not installed
  4    the results could not be written at the end
  130  interrupted"""


_PROFILE_HELP: dict[Profile, str] = {
    "quick": "measure some networks and sizes (the default): takes up to two minutes on two cores, "
    "three and a half with all baselines, and half a minute more the first time, for kernels",
    "full": "measure all networks and sizes, with starts: takes about an hour with all "
    "baselines; time to accuracy takes half an hour, populations two hours, estimators ten "
    "minutes, and are measured only with --levels accuracy, population or estimator",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""

    def work() -> int:
        words = sys.argv[1:] if argv is None else argv
        args = _parser().parse_args(words or ["--help"])
        code: int = args.run(args)
        return code

    return guarded(work, prog=PROG)


def _parser() -> argparse.ArgumentParser:
    examples = ("run", "run --full", "report bench-results/NAME.json")
    parser = Parser(prog=PROG, description=__doc__, epilog=EXIT_CODES, examples=examples)
    commands = parser.add_subparsers(
        required=True,
        metavar="run|report|compare|agree",
        help="what to do; each has its own --help",
    )
    _add_run(commands)
    _add_report(commands)
    _add_compare(commands)
    _add_agree(commands)
    return parser


def _add_run(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "run",
        help="measure",
        description="Measure this project's backends and the installed baselines.",
        epilog=EXIT_CODES,
        examples=("", "--full", "--contenders numpy,numba --levels training"),
    )
    _add_profiles(parser)
    parser.add_argument(
        "--levels",
        metavar="LEVEL,LEVEL",
        help=f"levels to measure, of {', '.join(LEVELS)} (default: all except "
        f"{', '.join(ONLY_NAMED)})",
    )
    parser.add_argument(
        "--contenders",
        metavar="NAME,NAME",
        help="contenders to measure, such as numba,torch-eager (default: all that can run here; "
        f"{', '.join(SLOW_TO_COMPILE)}, which compiles for minutes, only in full runs)",
    )
    _add_amounts(parser)
    parser.add_argument(
        "--order-seed",
        dest="seed",
        **integer(0),
        help="seed of the random order of the measurements (default: 0)",
    )
    parser.add_argument(
        "--threads",
        **integer(1),
        help="number of cores that each contender may use (default: all)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="result file, .json or .json.gz (default: bench-results/TIME.json)",
    )
    parser.add_argument(
        "--continue",
        dest="resume",
        action="store_true",
        help="finish the interrupted run of --out (default: the newest) with its settings",
    )
    names = [field.name for field in fields(RunRequest)]
    parser.set_defaults(
        run=lambda args: run_suite(
            RunRequest(**{name: getattr(args, name) for name in names}),
            out=args.out,
            resume=args.resume,
            minutes=args.minutes,
        )
    )


def _add_amounts(parser: Parser) -> None:
    """Add the flags that state how much is measured."""
    parser.add_argument(
        "--passes",
        **integer(1),
        help=f"measure each row N times (default: {PASSES['quick']}, in full runs "
        f"{PASSES['full']}); more passes give narrower intervals",
    )
    parser.add_argument(
        "--processes",
        **integer(1),
        help="divide the passes among N new processes per contender (default: "
        f"{PROCESSES['quick']}, in full runs {PROCESSES['full']})",
    )
    parser.add_argument(
        "--minutes",
        **integer(0),
        help="measure cases whose ratio is still undecided longer until the run has taken N "
        f"minutes (default: {MINUTES['quick']}, in full runs {MINUTES['full']})",
    )


def _add_profiles(parser: Parser) -> None:
    """Add a flag for each choice of cases."""
    group = parser.add_mutually_exclusive_group()
    for name, text in _PROFILE_HELP.items():
        group.add_argument(f"--{name}", dest="profile", action="store_const", const=name, help=text)


def _add_report(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "report",
        help="write a report on results",
        description="Write a report on results as a page (.html) and as text (.md).",
        epilog=EXIT_CODES,
        examples=("bench-results/NAME.json", "NAME.json --update README.md docs/benchmarks.md"),
    )
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="result files of `run`; several files are merged, so they must come from the same "
        "machine and code",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for the report (default: the folder of the first FILE)",
    )
    parser.add_argument(
        "--update",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="also replace the tables in these Markdown files between the lines "
        "`<!-- benchmark table NAME: begin -->` and `<!-- benchmark table NAME: end -->`; those "
        "without results in FILE remain",
    )
    parser.set_defaults(run=lambda args: report_command(args.results, args.out, args.update))


def _add_compare(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "compare",
        help="show what became slower from one run to another",
        description="Show what became slower or faster from one run to another.",
        epilog=EXIT_CODES,
        examples=("OLD.json NEW.json", "OLD.json NEW.json --fail-over 10%"),
    )
    parser.add_argument("old", type=Path, metavar="OLD", help="result file of the earlier run")
    parser.add_argument("new", type=Path, metavar="NEW", help="result file of the later run")
    parser.add_argument(
        "--fail-over",
        type=_percent,
        metavar="PERCENT",
        help="exit with 1 if a row of a backend is significantly slower, and by more than PERCENT "
        "(such as 10%%), or if the row has a time only in OLD although NEW measures it",
    )
    parser.set_defaults(run=lambda args: compare_command(args.old, args.new, args.fail_over))


def _add_agree(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "agree",
        help="show whether two runs of the same code agree",
        description="Count the ratios of two runs of the same code that lie in the intervals of "
        "the other run.",
        epilog=EXIT_CODES,
        examples=("FIRST.json SECOND.json",),
    )
    parser.add_argument("first", type=Path, metavar="FIRST", help="result file of one run")
    parser.add_argument("second", type=Path, metavar="SECOND", help="result file of the other run")
    parser.set_defaults(run=lambda args: agree_command(args.first, args.second))


def _percent(text: str) -> float:
    """Return 0.1 for 10%; a number without a percent sign is refused as ambiguous."""
    try:
        value = float(text.removesuffix("%")) if text.endswith("%") else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(
            f"must be a percentage with its sign, such as 10%, got {text}"
        )
    return value / 100


if __name__ == "__main__":
    sys.exit(main())
