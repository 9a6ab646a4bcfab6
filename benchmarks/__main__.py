"""The front door of the benchmarks: `python -m benchmarks run|report|compare`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases import PROFILES
from benchmarks.runner import PROG, run_suite
from benchmarks.settings import Wishes
from mnist_accel.commands import EXIT_USAGE, Parser
from mnist_accel.commands.arguments import integer
from mnist_accel.errors import UsageError


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
    parser = Parser(prog=PROG, description=__doc__, epilog="")
    commands = parser.add_subparsers(required=True, metavar="run|report|compare")
    _add_run(commands.add_parser("run", prog=f"{PROG} run", description="Measure."))
    report = commands.add_parser("report", prog=f"{PROG} report", description="Write a report.")
    report.add_argument("results", nargs="+", type=Path, metavar="FILE", help="result files")
    report.add_argument("--out", type=Path, metavar="DIR", help="folder (default: beside them)")
    report.add_argument(
        "--readme", type=Path, metavar="FILE", help="a file whose performance table is rewritten"
    )
    report.set_defaults(run=_report)
    compare = commands.add_parser(
        "compare", prog=f"{PROG} compare", description="Name what became slower."
    )
    compare.add_argument("old", type=Path, metavar="OLD")
    compare.add_argument("new", type=Path, metavar="NEW")
    compare.add_argument(
        "--fail-over",
        type=_percent,
        metavar="10%",
        help="exit with 1 if anything is so much slower",
    )
    compare.set_defaults(run=_compare)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    profile = parser.add_mutually_exclusive_group()
    for name, text in zip(PROFILES, ("under 3 minutes on two cores", "everything"), strict=True):
        profile.add_argument(
            f"--{name}", dest="profile", action="store_const", const=name, help=text
        )
    parser.add_argument("--levels", help="some of training,inference,operations,accuracy")
    parser.add_argument("--contenders", metavar="NAME,NAME", help="all that can run if not given")
    parser.add_argument("--passes", type=integer(1), metavar="N", help="how often each is measured")
    parser.add_argument("--order-seed", type=integer(0), metavar="N", help="of the order")
    parser.add_argument("--threads", type=integer(1), metavar="N", help="cores to use")
    parser.add_argument("--out", type=Path, metavar="FILE", help="result file")
    parser.add_argument("--continue", dest="go_on", action="store_true", help="an interrupted run")
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
