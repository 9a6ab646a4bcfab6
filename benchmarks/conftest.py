"""Turns cases into pytest-benchmark tests: which there are, in what order, and what is recorded.

`python -m benchmarks run` is the front door; `pytest benchmarks/` works too, with all options of
pytest-benchmark. Every pair of case and contender is measured once a pass, and all pairs of all
passes are shuffled together, so that a machine that slows down slows all of them.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.cases import LEVELS, PROFILES
from benchmarks.checks import CheckError
from benchmarks.contenders import contenders
from benchmarks.contenders.base import Contender
from benchmarks.laboratory import LEVEL_OF, Case, Laboratory, NotComparableError, Prepared
from benchmarks.record import Record, write_results
from benchmarks.settings import CASES, LEFT_OUT, NOT_QUICK, Wishes
from mnist_accel.errors import UsageError

# Seconds that a pair is measured for in each pass.
BUDGET_S = {"quick": 0.07, "full": 0.3}
SEEDS = 3
CAME_TO_END = (
    pytest.ExitCode.OK,
    pytest.ExitCode.TESTS_FAILED,
    # All that is left of a continued run had been measured before.
    pytest.ExitCode.NO_TESTS_COLLECTED,
)
Measure: TypeAlias = Callable[[Case, Contender, int], None]
# Level, name of the case, name of the contender: what is recorded if the work inside has no time.
Excuse: TypeAlias = Callable[[str, str, str], AbstractContextManager[None]]
RECORD = pytest.StashKey[Record]()
SESSION = pytest.StashKey[pytest.Session]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suite."""
    group = parser.getgroup("mnist_accel benchmarks")
    group.addoption("--profile", choices=PROFILES, help=f"which cases; {PROFILES[0]} if not given")
    group.addoption("--passes", type=int, help="how often each pair is measured")
    group.addoption("--levels", help="some of " + ",".join(LEVELS))
    group.addoption("--contenders", help="names, with commas; all if not given")
    group.addoption("--order-seed", type=int, help="of the order of the measurements")
    group.addoption(
        "--journal",
        type=Path,
        help="file that every measurement is added to at once; a run that it holds is continued",
    )
    group.addoption(
        "--results", type=Path, help="result file, .json or .json.gz, written when all is measured"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let the peers warn, and open the record of this run."""
    config.addinivalue_line("filterwarnings", "default")
    wishes = Wishes(
        profile=config.getoption("profile"),
        levels=config.getoption("levels"),
        contenders=config.getoption("contenders"),
        passes=config.getoption("passes"),
        seed=config.getoption("order_seed"),
    )
    try:
        config.stash[RECORD] = Record.open(wishes, config.getoption("journal"))
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each level its cases, contenders and passes."""
    if "case" not in metafunc.fixturenames:
        return
    settings = metafunc.config.stash[RECORD].settings
    level = _level(metafunc.function.__name__)
    cases = CASES[level](settings.profile) if level in settings.levels else ()
    repetitions = SEEDS if level == "accuracy" else settings.passes
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


def _level(function: str) -> str:
    return function.removeprefix("test_")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle, and leave out what an earlier run has measured already."""
    record = config.stash[RECORD]
    # Of a level that has no cases, pytest makes a test whose parameters are not set.
    items[:] = [item for item in items if isinstance(_parameters(item).get("repetition", 0), int)]
    _record_left_out(record, items)
    random.Random(record.settings.seed).shuffle(items)  # noqa: S311  # an order, not a secret
    done = record.done
    items[:] = [item for item in items if item.nodeid not in done]


def _record_left_out(record: Record, items: list[pytest.Item]) -> None:
    """Record who is spared a quick run, so that nobody looks for it in vain."""
    cases = {
        (_level(item.originalname), _parameters(item)["case"].name): None
        for item in items
        if isinstance(item, pytest.Function) and "repetition" in _parameters(item)
    }
    for name in record.settings.left_out:
        for level, case in cases:
            if level in NOT_QUICK[name]:
                record.absent(level, case, name, LEFT_OUT)


def _parameters(item: pytest.Item) -> dict[str, Any]:
    callspec: Any = getattr(item, "callspec", None)
    return {} if callspec is None else callspec.params


def pytest_sessionstart(session: pytest.Session) -> None:
    """Keep the session, which knows at its end whether it was interrupted."""
    session.config.stash[SESSION] = session


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have a journal say on what, and with whom, before anything is measured.

    Without one, whoever writes a file asks then; measuring ceilings takes seconds.
    """
    record = session.config.stash[RECORD]
    if record.journal is not None and not session.config.option.collectonly:
        record.describe()


@pytest.fixture(scope="session")
def record(pytestconfig: pytest.Config) -> Record:
    """What this run has found so far."""
    return pytestconfig.stash[RECORD]


@pytest.fixture(scope="session")
def laboratory(record: Record) -> Laboratory:
    """Prepares every pair once for all passes."""
    return Laboratory(steps_before=record.steps, weighs=record.settings.profile == "full")


@pytest.fixture
def excuse(record: Record) -> Excuse:
    """Record why a pair has no time; further passes give the same reason at once."""

    @contextmanager
    def excuse(level: str, case: str, contender: str) -> Iterator[None]:
        known = record.missing(level, case, contender)
        if known is not None:
            _give_up(*known)
        record.begin(level, case, contender)
        try:
            yield
        except NotComparableError as error:
            record.absent(level, case, contender, str(error))
            _give_up("absent", str(error))
        except CheckError as error:
            record.failed(level, case, contender, str(error))
            _give_up("failed", str(error))
        # pytest-timeout ends a test by an exception of pytest, which is no Exception.
        except (Exception, pytest.fail.Exception) as error:
            record.failed(level, case, contender, in_one_line(error))
            raise

    return excuse


def _give_up(kind: str, reason: str) -> NoReturn:
    """End a test whose pair is absent or failed."""
    if kind == "absent":
        raise pytest.skip.Exception(reason) from None
    raise pytest.fail.Exception(reason, pytrace=False) from None


def in_one_line(error: BaseException) -> str:
    """Return the type of an error, and the first line that it says."""
    first, *_ = [*str(error).strip().splitlines(), ""]
    return ": ".join(filter(None, (type(error).__name__, first)))


@pytest.fixture
def measure(
    benchmark: BenchmarkFixture, laboratory: Laboratory, record: Record, excuse: Excuse
) -> Measure:
    """Check a pair, and time it; one that is absent, wrong or breaks down is recorded so."""

    def measure(case: Case, contender: Contender, repetition: int) -> None:
        level = LEVEL_OF[type(case)]
        with excuse(level, case.name, contender.name):
            time_it(level, case, contender, repetition)

    def time_it(level: str, case: Case, contender: Contender, repetition: int) -> None:
        prepared = laboratory.prepare(case, contender)
        benchmark.group = f"{level}: {case.name}"
        benchmark.extra_info.update(
            {
                "level": level,
                "case": case.name,
                "contender": contender.name,
                "is_peer": contender.is_peer,
                "pass": repetition,
                **facts(prepared),
            }
        )
        rounds, calls = laboratory.rounds(prepared, BUDGET_S[record.settings.profile])
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            prepared.run, rounds=rounds, iterations=calls
        )

    return measure


def facts(prepared: Prepared) -> dict[str, Any]:
    """Return what a result file says of a measurement besides its times."""
    return {
        **prepared.facts,
        "images": prepared.images,
        "steps": prepared.steps,
        "flops": prepared.cost.flops,
        "bytes": prepared.cost.bytes,
        "phases_s": dict(prepared.phases_s),
        "check": vars(prepared.check),
        "peak_host_bytes": prepared.peak and prepared.peak.host_bytes,
        "peak_device_bytes": prepared.peak and prepared.peak.device_bytes,
    }


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add a measurement to the journal as soon as it is there."""
    outcome: Any = yield
    report = outcome.get_result()
    benchmark = getattr(item, "funcargs", {}).get("benchmark")
    if report.when == "call" and not report.failed and benchmark is not None and benchmark.stats:
        item.config.stash[RECORD].add(item.nodeid, benchmark.stats.as_dict(include_data=True))


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]
) -> None:
    """Complete the files that pytest-benchmark writes where its own options ask for them."""
    _end(config.stash[SESSION])
    config.stash[RECORD].complete(output_json)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the result file, if this is the end of a run.

    It is made of the record alone: pytest-benchmark saves nothing where this session, the last part
    of a run perhaps, has timed nothing.
    """
    _end(session)
    path = session.config.getoption("results")
    if path is None or exitstatus not in CAME_TO_END:
        return
    document = _empty_document(session.config)
    session.config.stash[RECORD].complete(document)
    try:
        write_results(path, document)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error


def _end(session: pytest.Session) -> None:
    """Record that all is measured, if that is so."""
    if session.exitstatus in CAME_TO_END and not session.config.option.collectonly:
        session.config.stash[RECORD].end()


def _empty_document(config: pytest.Config) -> dict[str, Any]:
    """Return what pytest-benchmark would write of a session without measurements."""
    document: dict[str, Any] = config.hook.pytest_benchmark_generate_json(
        config=config,
        benchmarks=[],
        include_data=True,
        machine_info=config.hook.pytest_benchmark_generate_machine_info(config=config),
        commit_info=config.hook.pytest_benchmark_generate_commit_info(config=config),
    )
    return document
