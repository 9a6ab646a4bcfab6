"""Runs the suite in a separate process, extends it while rows are undecided, writes the results."""

import gzip
import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from benchmarks.host import ROOT, usable_cores
from benchmarks.report.analysis import analyze, undecided_cases
from benchmarks.report.terminal import print_results
from benchmarks.session.settings import (
    MINUTES,
    RunRequest,
    check_code_and_cores,
    check_request,
    resolve,
)
from benchmarks.storage.journal import SUFFIX, Extended, Journal
from benchmarks.storage.results import load_results, read_run
from mnist_accel.commands.exit_codes import EXIT_DATA, EXIT_INTERRUPTED, EXIT_USAGE
from mnist_accel.errors import UsageError
from mnist_accel.util.files import write_atomically
from mnist_accel.util.process_lock import process_lock
from mnist_accel.util.text import count, shell_command

PROG = "python -m benchmarks"
RESULTS = Path("bench-results")  # ignored by git; published results are in benchmarks/results
# Exit codes of pytest, and the exit codes of the benchmarks for the same outcomes. pytest's code 5,
# no test collected, is a success: the interrupted run may have measured all rows already.
_EXIT_CODES = {2: EXIT_INTERRUPTED, 4: EXIT_USAGE, 5: 0}


def run_suite(
    request: RunRequest, *, out: Path | None, resume: bool, minutes: float | None = None
) -> int:
    """Measure, and write a result file.

    Args:
        request: what to measure; a continued run keeps its settings.
        out: the result file, .json or .json.gz. If None, a new run names the file after the time,
            and a continued run is the newest unfinished one.
        resume: continue the unfinished run that was to write `out`.
        minutes: rows that are still undecided are measured longer until the run has taken this
            time; None for the profile's.

    Returns:
        The exit code: 0 done; 1 a contender failed; 2 wrong usage; 4 the result file could not be
        written; 130 interrupted.

    Raises:
        UsageError: the arguments contradict each other or the existing files.
    """
    if resume:
        out = _unfinished(out)
        _check_resume(out, request)
    else:
        out = out or RESULTS / f"{datetime.now():%Y%m%d-%H%M%S}.json"
        _start(out, request)
    print(f"measuring; the results go to {out}", file=sys.stderr, flush=True)
    journal = _journal(out)
    with process_lock(journal.with_name(journal.name + ".lock"), f"writing {journal}"):
        if minutes is None:
            minutes = MINUTES[Journal.read(journal).settings.profile]
        end = time.monotonic() + 60 * minutes
        return finish_run(out, journal, _extend(journal, _run_pytest(journal), end))


def _extend(journal: Path, code: int, end: float) -> int:
    """Measure undecided cases with more processes while there is time; return the exit code."""
    while code in (0, 1) and time.monotonic() < end:
        undecided = undecided_cases(analyze(load_results([journal])))
        if not undecided:
            break
        print(f"{len(undecided)} cases are undecided; measuring them longer", file=sys.stderr)
        Journal.read(journal).add(Extended(cases=tuple(undecided)))
        code = max(code, _run_pytest(journal))
    return code


def _journal(out: Path) -> Path:
    return out.with_name(out.name + SUFFIX)


def _start(out: Path, request: RunRequest) -> None:
    """Check that a new run can be measured and written, limit its cores, and start its journal."""
    if not out.name.endswith((".json", ".json.gz")):
        raise UsageError(f"--out must end in .json or .json.gz, got {out}")
    journal = _journal(out)
    if journal.exists():
        raise UsageError(f"{journal} is an unfinished run; give --continue, or remove it")
    if out.exists():
        raise UsageError(f"{out} exists already; choose another --out")
    if request.threads is not None:
        _limit_cores(request.threads)
    settings = resolve(request)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        Journal(settings, journal)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror or error}") from error


def _unfinished(out: Path | None) -> Path:
    """Return the result file of the run to continue."""
    if out is None:
        journals = RESULTS.glob(f"*{SUFFIX}")
        newest = max(journals, key=lambda journal: journal.stat().st_mtime, default=None)
        if newest is None:
            raise UsageError(f"no unfinished run in {RESULTS}; name its result file with --out")
        return newest.with_name(newest.name.removesuffix(SUFFIX))
    if not _journal(out).exists():
        raise UsageError(f"no unfinished run {_journal(out)}; omit --continue to start a new run")
    return out


def _check_resume(out: Path, request: RunRequest) -> None:
    """Check that a run can be continued, and limit the cores as when it started."""
    journal = _journal(out)
    if out.exists():
        raise UsageError(f"{out} exists already, and so does {journal}; remove one of them")
    settings = Journal.read(journal).settings
    check_request(settings, request, journal)
    if settings.threads != usable_cores():
        _limit_cores(settings.threads)
    check_code_and_cores(settings, journal)


def _limit_cores(threads: int) -> None:
    """Bind this process and its children to this number of cores, which all libraries respect."""
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError("--threads needs a system that binds processes to cores, such as Linux")
    cores = sorted(os.sched_getaffinity(0))
    if threads > len(cores):
        raise UsageError(
            f"--threads is {threads}; this process may use {count(len(cores), 'core')}"
        )
    os.sched_setaffinity(0, cores[:threads])


def _run_pytest(journal: Path) -> int:
    """Continue a run in a new process, whose libraries see only the cores they may use."""
    command = [
        *(sys.executable, "-m", "pytest", "benchmarks"),
        # The options in pyproject.toml belong to pytest's terminal display, which is off.
        *("-p", "benchmarks.session.progress", "-p", "no:terminal"),
        *("-o", "addopts=--strict-markers"),
        # Not used by the suite; hypothesis takes a second to import.
        *("-p", "no:cacheprovider", "-p", "no:hypothesispytest"),
        # With --benchmark-only, it is an error if anything disables the benchmarks.
        *("--benchmark-only", "--benchmark-disable-gc", "--benchmark-quiet"),
        f"--journal={journal.resolve()}",
    ]
    try:
        code = subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return _EXIT_CODES.get(code, code)


def _command(*words: str) -> str:
    """Return a command for the user's shell; the name "python" may be another version."""
    return shell_command([sys.orig_argv[0], "-m", "benchmarks", *words])


def finish_run(out: Path, journal: Path, code: int) -> int:
    """Remove the journal if the result file can be read; return the exit code."""
    resume = _command("run", "--continue", "--out", str(out))
    if code == EXIT_INTERRUPTED:
        print(
            f"interrupted; continue with: {resume}\n"
            f"or report the rows so far with: {_command('report', str(journal))}",
            file=sys.stderr,
        )
        return code
    # Python also exits with 1 after an internal error, so the result file itself is checked.
    try:
        if code in (0, 1):
            write_results(out, journal)
        read_run(out)
    except UsageError as error:
        print(
            f"{PROG}: no result file was written ({error}); all measurements are in {journal}; "
            f"continue with: {resume}",
            file=sys.stderr,
        )
        return EXIT_DATA
    journal.unlink()
    print(f"results are in {out}; report them with: {_command('report', str(out))}")
    print_results(analyze(load_results([out])), sys.stdout)
    return code


def write_results(out: Path, journal: Path) -> None:
    """Write the result file of a complete run.

    Raises:
        UsageError: the journal is incomplete, or the file cannot be written.
    """
    document = Journal.read(journal).document()
    if not document["mnist_accel"]["complete"]:
        raise UsageError("the run is incomplete")
    content = json.dumps(document, indent=4).encode()
    try:
        write_atomically(out, gzip.compress(content) if out.suffix == ".gz" else content)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror or error}") from error
