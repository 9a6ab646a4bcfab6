"""The front door of the benchmarks: `python -m benchmarks run|report|compare`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases import LEVELS, PROFILES
from benchmarks.runner import PROG, run_suite
from benchmarks.settings import NOT_QUICK, PASSES, Wishes
from mnist_accel.commands.argument_types import integer
from mnist_accel.commands.exit_codes import EXIT_USAGE
from mnist_accel.commands.parser import Parser
from mnist_accel.errors import UsageError

EXIT_CODES = """exit codes:
  0 done; 1 a contender failed, or something is slower than --fail-over allows; 2 wrong usage, or a
  file that cannot be read or written; 4 the results could not be written at the end;
  130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code."""
    parser = _parser()
    try:
        args = parser.parse_args(argv)
        code: int = args.run(args)
    except SystemExit as stop:  # argparse, after its own message
        return int(stop.code or 0)
    except UsageError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return EXIT_USAGE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=PROG, description=__doc__, epilog=EXIT_CODES)
    commands = parser.add_subparsers(
        required=True, metavar="run|report|compare", help="what to do; each has its own --help"
    )
    _add_run(
        commands.add_parser(
            "run",
            help="measure",
            prog=f"{PROG} run",
            description="Measure this project's backends, and the peers that are installed.",
            epilog=EXIT_CODES,
        )
    )
    report = commands.add_parser(
        "report",
        help="write a page and a text about what was measured",
        prog=f"{PROG} report",
        description="Write what was measured as a page (.html) and as a text (.md).",
        epilog=EXIT_CODES,
    )
    report.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="result files of `run`; several are taken for one run, so they must come from the "
        "same machine and code",
    )
    report.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for page and text (default: that of the first FILE)",
    )
    report.add_argument(
        "--readme",
        type=Path,
        metavar="FILE",
        help="a text whose table between the lines `<!-- benchmark table: begin -->` and "
        "`<!-- benchmark table: end -->` is rewritten, too",
    )
    report.set_defaults(run=_report)
    compare = commands.add_parser(
        "compare",
        help="name what became slower from one run to another",
        prog=f"{PROG} compare",
        description="Name what became slower, or faster, from one run to another.",
        epilog=EXIT_CODES,
    )
    compare.add_argument("old", type=Path, metavar="OLD", help="result file of the earlier run")
    compare.add_argument("new", type=Path, metavar="NEW", help="result file of the later run")
    compare.add_argument(
        "--fail-over",
        type=_percent,
        metavar="PERCENT",
        help="such as 10%%: exit with 1 if a row of this project is slower by more than that, and "
        "beyond noise, or has no time any more",
    )
    compare.set_defaults(run=_compare)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    profile = parser.add_mutually_exclusive_group()
    texts = (
        "a choice of networks and sizes (the default): three minutes on two cores, and half a "
        "minute more the first time, to compile kernels",
        "all networks and sizes, and time to accuracy: about two hours with all peers, a good "
        "part of which they compile",
    )
    for name, text in zip(PROFILES, texts, strict=True):
        profile.add_argument(
            f"--{name}", dest="profile", action="store_const", const=name, help=text
        )
    parser.add_argument(
        "--levels",
        metavar="LEVEL,LEVEL",
        help=f"what is measured: some of {', '.join(LEVELS)} (default: all)",
    )
    parser.add_argument(
        "--contenders",
        metavar="NAME,NAME",
        help="who takes part, such as numba,torch-eager (default: all that can run here; "
        f"{', '.join(NOT_QUICK)}, which takes minutes to compile, in full runs alone)",
    )
    parser.add_argument(
        "--passes",
        type=integer(1),
        metavar="N",
        help="go N times through all that is measured (default: "
        f"{PASSES['quick']}, full runs {PASSES['full']}); with more, the intervals become narrower",
    )
    parser.add_argument(
        "--order-seed",
        type=integer(0),
        metavar="N",
        help="seed of the random order in which everything is measured (default: 0)",
    )
    parser.add_argument(
        "--threads",
        type=integer(1),
        metavar="N",
        help="cores that everybody may use (default: all)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="result file, .json or .json.gz (default: benchmarks/results/TIME.json)",
    )
    parser.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="finish the run that was interrupted, with its settings: the newest, or the one that "
        "was to write the file named by --out",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    wishes = Wishes(
        profile=args.profile,
        levels=args.levels,
        contenders=args.contenders,
        passes=args.passes,
        seed=args.order_seed,
        threads=args.threads,
    )
    return run_suite(wishes, out=args.out, go_on=args.go_on)


def _report(args: argparse.Namespace) -> int:
    from benchmarks.report import report_command

    return report_command(args.results, args.out, readme=args.readme)


def _compare(args: argparse.Namespace) -> int:
    from benchmarks.comparison import compare_command

    return compare_command(args.old, args.new, args.fail_over)


def _percent(text: str) -> float:
    """Return 0.1 for 10%; a bare number could mean either."""
    try:
        value = float(text.removesuffix("%")) if text.endswith("%") else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(
            f"expected a percentage with its sign, such as 10%, got {text}"
        )
    return value / 100


if __name__ == "__main__":
    sys.exit(main())
