"""Runs the suite: in a process of its own, with so many cores, to a result file."""

import gzip
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from benchmarks.cases import LEVELS
from benchmarks.contenders import choose
from benchmarks.host import ROOT, usable_cores
from mnist_accel.commands import EXIT_INTERRUPTED, EXIT_USAGE
from mnist_accel.errors import UsageError

RESULTS = Path("benchmarks/results")
# What pytest's exit codes are to the users of this program.
_EXIT_CODES = {0: 0, 1: 1, 2: EXIT_INTERRUPTED, 4: EXIT_USAGE, 5: EXIT_USAGE}


def run_suite(
    *, options: dict[str, str], out: Path | None, threads: int | None, go_on: bool
) -> int:
    """Measure, and write a result file.

    Args:
        options: of the suite, as `pytest benchmarks` knows them.
        out: the result file, .json or .json.gz; named after the time if None.
        threads: cores that everything may use; all that there are if None.
        go_on: continue the run that was writing `out`.

    Returns:
        The exit code: 0 done; 1 a contender failed its check; 2 wrong usage; 130 interrupted.

    Raises:
        UsageError: the arguments contradict what is there.
    """
    choose(options.get("contenders", "numpy"))
    unknown = sorted(set(options.get("levels", "training").split(",")) - set(LEVELS))
    if unknown:
        raise UsageError(f"unknown level {', '.join(unknown)}; choose {', '.join(LEVELS)}")
    if threads is not None:
        _limit_cores(threads)
    out = out or RESULTS / f"{datetime.now():%Y%m%d-%H%M%S}.json"
    journal = out.with_suffix(".journal")
    if go_on and not journal.exists():
        raise UsageError(f"there is no unfinished run {journal}; leave out --continue")
    if not go_on and journal.exists():
        raise UsageError(f"{journal} is an unfinished run: give --continue, or remove it")
    if not go_on and out.exists():
        raise UsageError(f"{out} exists already; choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        journal.touch()
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror or error}") from error
    plain = out.with_suffix("") if out.suffix == ".gz" else out
    code = _pytest({**options, "journal": str(journal.resolve())}, plain.resolve())
    if plain != out and plain.exists():
        out.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    if code in (0, 1):
        journal.unlink()
        print(f"results are in {out}; python -m benchmarks report {out}")
    elif code == EXIT_INTERRUPTED:
        print(f"interrupted; go on with --continue --out {out}", file=sys.stderr)
    elif not journal.stat().st_size:
        journal.unlink()
    return code


def _limit_cores(threads: int) -> None:
    """Let this process and its children use so many cores; all libraries heed that alike."""
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError("--threads needs a system that binds processes to cores, such as Linux")
    cores = sorted(os.sched_getaffinity(0))
    if threads > len(cores):
        raise UsageError(f"--threads is {threads}, but there are {usable_cores()} cores")
    os.sched_setaffinity(0, cores[:threads])


def _pytest(options: dict[str, str], out: Path) -> int:
    """Run the tests in a fresh process, whose libraries see the cores they may use."""
    command = [
        *(sys.executable, "-m", "pytest", "benchmarks", f"--benchmark-json={out}"),
        # Without pytest's display, the options of the project that shape it are unknown.
        *("-p", "benchmarks.progress", "-p", "no:terminal", "-o", "addopts=--strict-markers"),
        *("-p", "no:cacheprovider"),
        # "only" makes it an error, instead of a run without a time, if something disables them.
        *("--benchmark-only", "--benchmark-disable-gc", "--benchmark-quiet"),
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    try:
        code = subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return _EXIT_CODES.get(code, code)
