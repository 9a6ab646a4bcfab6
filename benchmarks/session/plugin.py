"""The pytest hooks and fixtures that turn cases into tests of pytest-benchmark.

Each row, which is a case with a contender, is measured once per pass. The rows of all passes are
shuffled together, so that a machine that slows down slows all contenders.
"""

import gzip
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.contenders import contenders
from benchmarks.contenders.base import Contender
from benchmarks.host import host_facts, usable_cores
from benchmarks.session.settings import CASES, FULL_ONLY, LEFT_OUT, RunRequest, open_journal
from benchmarks.storage.journal import Absent, Failed, Journal, Machine, RowStarted
from benchmarks.storage.schema import ContenderFacts
from benchmarks.suite.accuracy import measure_accuracy
from benchmarks.suite.cases import LEVELS, PROFILES, AccuracyCase
from benchmarks.suite.ceilings import measure_ceilings
from benchmarks.suite.checks import CheckError
from benchmarks.suite.preparer import Case, NotComparableError, Preparer
from mnist_accel.errors import UsageError
from mnist_accel.util.files import write_atomically

# Seconds of measurement per row and pass.
BUDGET_S = {"quick": 0.07, "full": 0.3}
ACCURACY_SEEDS = 3
COMPLETE = (
    pytest.ExitCode.OK,
    pytest.ExitCode.TESTS_FAILED,
    # In a continued run, the earlier part may have measured everything.
    pytest.ExitCode.NO_TESTS_COLLECTED,
)
Measure: TypeAlias = Callable[[Case | AccuracyCase, Contender, int], None]
JOURNAL = pytest.StashKey[Journal]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suite."""
    group = parser.getgroup("mnist_accel benchmarks")
    group.addoption("--profile", choices=PROFILES, help=f"choice of cases (default: {PROFILES[0]})")
    group.addoption("--passes", type=int, help="how many times to measure each row")
    group.addoption("--levels", help="levels to measure, separated by commas: " + ",".join(LEVELS))
    group.addoption("--contenders", help="contenders to measure, separated by commas")
    group.addoption("--order-seed", type=int, help="seed of the order of the measurements")
    group.addoption(
        "--journal",
        type=Path,
        help="file to which each measurement is appended; a run that it contains is continued",
    )
    group.addoption(
        "--results", type=Path, help="result file, .json or .json.gz, written after the last row"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Open the journal of the run; warnings of other libraries are not errors."""
    config.addinivalue_line("filterwarnings", "default")
    request = RunRequest(
        profile=config.getoption("profile"),
        levels=config.getoption("levels"),
        contenders=config.getoption("contenders"),
        passes=config.getoption("passes"),
        seed=config.getoption("order_seed"),
    )
    try:
        config.stash[JOURNAL] = open_journal(request, config.getoption("journal"))
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize the test of each level by case, contender and pass."""
    if "case" not in metafunc.fixturenames:
        return
    settings = metafunc.config.stash[JOURNAL].settings
    level = metafunc.function.__name__.removeprefix("test_")
    cases = CASES[level](settings.profile) if level in settings.levels else ()
    repetitions = ACCURACY_SEEDS if level == "accuracy" else settings.passes
    metafunc.parametrize(
        ("case", "contender", "repetition"),
        [
            pytest.param(
                case, contenders()[name], repetition, id=f"{case.name}-{name}-{repetition}"
            )
            for case in cases
            for name in settings.contenders
            for repetition in range(repetitions)
        ],
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle the tests, and remove those that an earlier part of the run has measured."""
    journal = config.stash[JOURNAL]
    # For a level without cases, pytest generates one test without parameters.
    items[:] = [item for item in items if isinstance(_parameters(item).get("repetition", 0), int)]
    _record_left_out(journal, items)
    random.Random(journal.settings.seed).shuffle(items)  # noqa: S311  # an order, not a secret
    measured = journal.measured_tests
    items[:] = [item for item in items if item.nodeid not in measured]


def _record_left_out(journal: Journal, items: list[pytest.Item]) -> None:
    """Record the rows that only a full run measures as absent, with the reason."""
    cases = dict.fromkeys(_parameters(item)["case"] for item in items if _parameters(item))
    for name in journal.settings.left_out:
        for case in cases:
            if case.level in FULL_ONLY[name]:
                row = {"level": case.level, "case": case.name, "contender": name}
                journal.add(Absent(**row, reason=LEFT_OUT))


def _parameters(item: pytest.Item) -> dict[str, Any]:
    callspec: Any = getattr(item, "callspec", None)
    return {} if callspec is None else callspec.params


def pytest_collection_finish(session: pytest.Session) -> None:
    """Describe the machine in the journal before the first measurement.

    Without a journal file this waits until a result file is written, because it takes seconds.
    """
    journal = session.config.stash[JOURNAL]
    if journal.path is not None and not session.config.option.collectonly:
        describe_machine(journal)


def describe_machine(journal: Journal) -> None:
    """Record the machine and the contenders, unless an earlier part of the run has done so."""
    if journal.has_machine:
        return
    names = (*journal.settings.contenders, *journal.settings.left_out)
    journal.add(
        Machine(
            host=host_facts(),
            ceilings=measure_ceilings(),
            contenders={
                name: ContenderFacts(
                    is_baseline=contender.is_baseline,
                    versions=contender.versions() if contender.availability().ok else {},
                    threads=usable_cores(),
                    device=contender.device(),
                )
                for name, contender in contenders().items()
                if name in names
            },
        )
    )


@pytest.fixture(scope="session")
def journal(pytestconfig: pytest.Config) -> Journal:
    """The journal of this run."""
    return pytestconfig.stash[JOURNAL]


@pytest.fixture(scope="session")
def preparer(journal: Journal) -> Preparer:
    """Prepares each row once for all passes."""
    return Preparer(known_steps=journal.steps, measures_memory=journal.settings.profile == "full")


@pytest.fixture
def measure(benchmark: BenchmarkFixture, preparer: Preparer, journal: Journal) -> Measure:
    """Check a row and measure it; if that is impossible, record the row with the reason."""

    def measure(case: Case | AccuracyCase, contender: Contender, repetition: int) -> None:
        benchmark.group = f"{case.level}: {case.name}"
        with _record_skip_reason(journal, case, contender):
            if isinstance(case, AccuracyCase):
                benchmark.extra_info |= {
                    "level": case.level,
                    "case": case.name,
                    "contender": contender.name,
                    "is_peer": contender.is_baseline,
                }
                measure_accuracy(benchmark, case, contender, seed=repetition)
                return
            prepared = preparer.prepare(case, contender)
            info = msgspec.structs.replace(prepared.info, pass_number=repetition)
            benchmark.extra_info |= msgspec.to_builtins(info)
            rounds, calls = preparer.rounds(prepared, BUDGET_S[journal.settings.profile])
            benchmark.pedantic(  # type: ignore[no-untyped-call]
                prepared.run, rounds=rounds, iterations=calls
            )

    return measure


@contextmanager
def _record_skip_reason(
    journal: Journal, case: Case | AccuracyCase, contender: Contender
) -> Iterator[None]:
    """Record why a row has no time. If the reason is known from an earlier pass, end the test."""
    row = {"level": case.level, "case": case.name, "contender": contender.name}
    known = journal.missing((case.level, case.name, contender.name))
    if known is not None:
        _end_test(known)
    journal.add(RowStarted(**row))
    try:
        yield
    except (NotComparableError, CheckError) as error:
        kind = Absent if isinstance(error, NotComparableError) else Failed
        line = kind(**row, reason=str(error))
        journal.add(line)
        _end_test(line)
    # pytest-timeout ends a test with an exception of pytest, which is not an Exception.
    except (Exception, pytest.fail.Exception) as error:
        first_line = str(error).strip().partition("\n")[0]
        reason = ": ".join(filter(None, (type(error).__name__, first_line)))
        journal.add(Failed(**row, reason=reason))
        raise


def _end_test(line: Absent | Failed) -> NoReturn:
    if isinstance(line, Absent):
        raise pytest.skip.Exception(line.reason) from None
    raise pytest.fail.Exception(line.reason, pytrace=False) from None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add a measurement to the journal as soon as it is complete."""
    outcome: Any = yield
    report = outcome.get_result()
    benchmark = getattr(item, "funcargs", {}).get("benchmark")
    if report.when == "call" and not report.failed and benchmark is not None and benchmark.stats:
        stats = benchmark.stats.as_dict(include_data=True)
        item.config.stash[JOURNAL].measured(item.nodeid, stats)


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]
) -> None:
    """Complete the files that pytest-benchmark writes for its own options."""
    _complete(output_json, config.stash[JOURNAL])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """Record the end of the run before pytest-benchmark writes its files, then write the result.

    The result file is made of the journal, because pytest-benchmark writes no file if this session,
    which may be the last part of a run, has measured nothing.
    """
    config, hook = session.config, session.config.hook
    complete = exitstatus in COMPLETE and not config.option.collectonly
    if complete:
        config.stash[JOURNAL].end(host_facts())
    yield
    path = config.getoption("results")
    if path is None or not complete:
        return
    document: dict[str, Any] = hook.pytest_benchmark_generate_json(
        config=config,
        benchmarks=[],
        include_data=True,
        machine_info=hook.pytest_benchmark_generate_machine_info(config=config),
        commit_info=hook.pytest_benchmark_generate_commit_info(config=config),
    )
    _complete(document, config.stash[JOURNAL])
    content = json.dumps(document, indent=4).encode()
    try:
        write_atomically(path, gzip.compress(content) if path.suffix == ".gz" else content)
    except OSError as error:
        raise pytest.UsageError(f"cannot write {path}: {error.strerror or error}") from error


def _complete(document: dict[str, Any], journal: Journal) -> None:
    """Replace the measurements of a result file by those of the journal, and add its facts."""
    describe_machine(journal)
    document |= journal.document()
