"""Runs the suite: in a process of its own, with so many cores, to a result file."""

import fcntl
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from benchmarks.host import ROOT, usable_cores
from benchmarks.journal import SUFFIX
from benchmarks.record import begun_with, blame_the_last
from benchmarks.result_files import load_results
from benchmarks.settings import Wishes, must_agree, must_be_here, settle
from mnist_accel.commands.exit_codes import EXIT_DATA, EXIT_INTERRUPTED, EXIT_USAGE
from mnist_accel.errors import UsageError

PROG = "python -m benchmarks"
RESULTS = Path("benchmarks/results")
# What pytest's exit codes are to the users of this program. Nothing to do (5) is what a run finds
# that was interrupted when all was measured.
_EXIT_CODES = {2: EXIT_INTERRUPTED, 4: EXIT_USAGE, 5: 0}


def run_suite(wishes: Wishes, *, out: Path | None, go_on: bool) -> int:
    """Measure, and write a result file.

    Args:
        wishes: what to measure; of a run that is continued, nothing need be said again.
        out: the result file, .json or .json.gz. If None, a new run names it after the time, and a
            continued one is the newest that was interrupted.
        go_on: continue the run that was writing `out`.

    Returns:
        The exit code: 0 done; 1 a contender failed; 2 wrong usage; 4 the result file could not be
        written; 130 interrupted.

    Raises:
        UsageError: the arguments contradict each other, or what is there.
    """
    if go_on:
        out = _unfinished(out)
        _take_up(out, wishes)
        options = {}
    else:
        out = out or RESULTS / f"{datetime.now():%Y%m%d-%H%M%S}.json"
        _begin(out, wishes)
        options = _options(wishes)
    journal = _journal(out)
    with _alone(journal):
        code = _pytest(
            {**options, "journal": str(journal.resolve()), "results": str(out.resolve())},
        )
        return _conclude(out, journal, code)


def _journal(out: Path) -> Path:
    return out.with_name(out.name + SUFFIX)


@contextmanager
def _alone(journal: Path) -> Iterator[None]:
    """Keep other runs away from a journal as long as this one writes it.

    Raises:
        UsageError: another one does.
    """
    with journal.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{journal} is of a run that still goes on; wait for it") from None
        yield


def _begin(out: Path, wishes: Wishes) -> None:
    """Make sure that a new run can measure and be written, and bind it to its cores.

    Raises:
        UsageError: it cannot.
    """
    if not out.name.endswith((".json", ".json.gz")):
        raise UsageError(f"--out is {out}; expected a name that ends in .json or .json.gz")
    journal = _journal(out)
    if journal.exists():
        raise UsageError(f"{journal} is an unfinished run: give --continue, or remove it")
    if out.exists():
        raise UsageError(f"{out} exists already; choose another --out")
    settle(wishes)
    if wishes.threads is not None:
        _limit_cores(wishes.threads)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        journal.touch()
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror or error}") from error


def _unfinished(out: Path | None) -> Path:
    """Return the result file of the run to continue.

    Raises:
        UsageError: there is none.
    """
    if out is None:
        journals = RESULTS.glob(f"*{SUFFIX}")
        newest = max(journals, key=lambda journal: journal.stat().st_mtime, default=None)
        if newest is None:
            raise UsageError(f"there is no unfinished run in {RESULTS}; name it by --out")
        return newest.with_name(newest.name.removesuffix(SUFFIX))
    if not _journal(out).exists():
        raise UsageError(f"there is no unfinished run {_journal(out)}; leave out --continue")
    return out


def _take_up(out: Path, wishes: Wishes) -> None:
    """Make sure that a run can go on as it began, and bind it to its cores.

    Raises:
        UsageError: it cannot.
    """
    journal = _journal(out)
    if out.exists():
        raise UsageError(f"{out} exists already, beside its {journal}; remove one of the two")
    begun = begun_with(journal)
    must_agree(begun, wishes, journal)
    if begun.threads != usable_cores():
        _limit_cores(begun.threads)
    must_be_here(begun, journal)


def _options(wishes: Wishes) -> dict[str, str]:
    """Return the options by which pytest knows what is wished."""
    options = {
        "profile": wishes.profile,
        "levels": wishes.levels,
        "contenders": wishes.contenders,
        "passes": wishes.passes,
        "order-seed": wishes.seed,
    }
    return {name: str(value) for name, value in options.items() if value is not None}


def _limit_cores(threads: int) -> None:
    """Let this process and its children use so many cores; all libraries heed that alike."""
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError("--threads needs a system that binds processes to cores, such as Linux")
    cores = sorted(os.sched_getaffinity(0))
    if threads > len(cores):
        raise UsageError(f"--threads is {threads}, but there are {usable_cores()} cores")
    os.sched_setaffinity(0, cores[:threads])


def _pytest(options: dict[str, str]) -> int:
    """Run the tests in a fresh process, whose libraries see the cores they may use."""
    command = [
        *(sys.executable, "-m", "pytest", "benchmarks"),
        # Without pytest's display, the options of the project that shape it are unknown.
        *("-p", "benchmarks.progress", "-p", "no:terminal", "-o", "addopts=--strict-markers"),
        # Needed by no benchmark; the latter takes a second to import.
        *("-p", "no:cacheprovider", "-p", "no:hypothesispytest"),
        # "only" makes it an error, instead of a run without a time, if something disables them.
        *("--benchmark-only", "--benchmark-disable-gc", "--benchmark-quiet"),
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    try:
        code = subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return _EXIT_CODES.get(code, code)


def _conclude(out: Path, journal: Path, code: int) -> int:
    """Remove the journal if all of it is in the result file; return the exit code."""
    again = f"{PROG} run --continue --out {shlex.quote(str(out))}"
    if not journal.stat().st_size:
        journal.unlink()
        return code
    if code == EXIT_INTERRUPTED:
        print(
            f"interrupted; go on with: {again}\n"
            f"or see what there is with: {PROG} report {shlex.quote(str(journal))}",
            file=sys.stderr,
        )
        return code
    if code < 0:  # a signal ended it, which no test can survive: --continue is not to repeat it
        blame_the_last(journal)
    # Python, too, ends with 1 when it breaks down: whether all is well, the file itself must show.
    try:
        load_results([out])
    except UsageError as error:
        print(
            f"{PROG}: no result file was written ({error}), but {journal} has all that was "
            f"measured; go on with: {again}",
            file=sys.stderr,
        )
        return EXIT_DATA
    journal.unlink()
    print(f"results are in {out}; {PROG} report {shlex.quote(str(out))}")
    return code
