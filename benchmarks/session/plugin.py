"""The pytest hooks and fixtures that turn the rows of a run into tests of pytest-benchmark.

Each test is one turn of one contender. Its time is measured by the worker of the contender, in the
worker's process; pytest-benchmark reads it from a clock that the test sets.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.contenders import contenders
from benchmarks.cores import Cores
from benchmarks.host import host_facts
from benchmarks.session.plan import Plan, Planned
from benchmarks.session.progress import ANNOUNCE
from benchmarks.session.settings import (
    CORES_MINUTES,
    LEFT_OUT,
    SLOW_TO_COMPILE,
    TURN_S,
    RunRequest,
    is_measured,
    open_journal,
)
from benchmarks.storage.journal import Absent, Failed, Journal, Machine
from benchmarks.suite.cases import LEVELS, PROFILES, AccuracyCase, Case, StartCase
from benchmarks.suite.ceilings import measure_ceilings
from benchmarks.workers.process import WorkerError
from benchmarks.workers.team import Team
from mnist_accel.errors import UsageError

COMPLETE = (
    pytest.ExitCode.OK,
    pytest.ExitCode.TESTS_FAILED,
    # In a continued run, the earlier part may have measured everything.
    pytest.ExitCode.NO_TESTS_COLLECTED,
)
Measure: TypeAlias = Callable[[Case, str, int], None]
JOURNAL, PLAN, TEAM = pytest.StashKey[Journal](), pytest.StashKey[Plan](), pytest.StashKey[Team]()


class WorkerClock:
    """A clock that shows the seconds which a worker has measured."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


worker_clock = WorkerClock()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suite."""
    group = parser.getgroup("mnist_accel benchmarks")
    group.addoption("--profile", choices=PROFILES, help=f"choice of cases (default: {PROFILES[0]})")
    group.addoption("--passes", type=int, help="how many times to measure each row")
    group.addoption("--processes", type=int, help="number of processes among which passes divide")
    group.addoption("--levels", help="levels to measure, separated by commas: " + ",".join(LEVELS))
    group.addoption("--contenders", help="contenders to measure, separated by commas")
    group.addoption("--order-seed", type=int, help="seed of the order of the measurements")
    group.addoption(
        "--journal",
        type=Path,
        help="file to which each measurement is appended; a run that it contains is continued",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Open the journal of the run; warnings of other libraries are not errors."""
    config.addinivalue_line("filterwarnings", "default")
    names = ("profile", "levels", "contenders", "passes", "processes")
    request = RunRequest(
        **{name: config.getoption(name) for name in names}, seed=config.getoption("order_seed")
    )
    try:
        journal = open_journal(request, config.getoption("journal"))
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[JOURNAL], config.stash[PLAN] = journal, Plan.of(journal)
    cores = Cores(
        barriers_ns=journal.barriers_ns,
        wait_s=60 * CORES_MINUTES[journal.settings.profile],
        # The plugin that displays the progress sets the function later.
        announce=lambda text: config.stash.get(ANNOUNCE, print)(text),
    )
    config.stash[TEAM] = Team(steps=journal.steps, before_turn=cores.wait)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize the test of each level by case, contender and pass."""
    if "case" not in metafunc.fixturenames:
        return
    level = metafunc.function.__name__.removeprefix("test_")
    metafunc.parametrize(
        ("case", "contender", "number"),
        [
            pytest.param(
                one.case,
                one.contender,
                one.number,
                id=f"{one.case.name}-{one.contender}-{one.number}",
            )
            for one in metafunc.config.stash[PLAN].turns
            if one.case.level == level
        ],
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort the tests as planned, and remove those that an earlier part of the run has measured."""
    journal, plan = config.stash[JOURNAL], config.stash[PLAN]
    # For a level without cases, pytest generates one test without parameters.
    items[:] = [item for item in items if _planned(item) is not None]
    _record_left_out(journal, plan)
    measured = journal.measured_tests
    items[:] = [item for item in items if item.nodeid not in measured]
    places = {one.key: place for place, one in enumerate(plan.turns)}
    items.sort(key=lambda item: places[_key(item)])
    for item in items:
        item.add_marker(pytest.mark.timeout(0))  # the workers have their own limits


def _planned(item: pytest.Item) -> Planned | None:
    callspec: Any = getattr(item, "callspec", None)
    params = {} if callspec is None else callspec.params
    if not isinstance(params.get("number"), int):
        return None
    return Planned(params["case"], params["contender"], params["number"])


def _key(item: pytest.Item) -> tuple[str, str, str, int]:
    planned = _planned(item)
    assert planned is not None, "other items were removed"
    return planned.key


def _record_left_out(journal: Journal, plan: Plan) -> None:
    """Record the rows that only a full run measures as absent, with the reason."""
    for name in journal.settings.left_out:
        for case in plan.cases:
            if case.level in SLOW_TO_COMPILE[name]:
                row = {"level": case.level, "case": case.name, "contender": name}
                journal.add(Absent(**row, reason=LEFT_OUT))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Describe the machine and the contenders in the journal before the first measurement."""
    config = session.config
    if not config.option.collectonly:
        _describe_machine(config)


def _describe_machine(config: pytest.Config) -> None:
    """Record the machine and the contenders, unless an earlier part of the run has done so."""
    journal = config.stash[JOURNAL]
    if journal.has_machine:
        return
    settings = journal.settings
    try:
        described = config.stash[TEAM].describe((*settings.contenders, *settings.left_out))
    except WorkerError as error:
        raise pytest.UsageError(f"a contender could not be started: {error}") from error
    for name in settings.contenders:
        if reason := described[name].reason:
            for case in config.stash[PLAN].cases:
                if not is_measured(case, name):
                    continue
                row = {"level": case.level, "case": case.name, "contender": name}
                journal.add(Absent(**row, reason=reason))
    hook = config.hook
    journal.add(
        Machine(
            host=host_facts(),
            ceilings=measure_ceilings(),
            contenders={name: one.facts for name, one in described.items()},
            machine_info=hook.pytest_benchmark_generate_machine_info(config=config),
            commit_info=hook.pytest_benchmark_generate_commit_info(config=config),
        )
    )


@pytest.fixture
def measure(benchmark: BenchmarkFixture, pytestconfig: pytest.Config) -> Measure:
    """Give a contender a turn in a case; if that is impossible, record the row with the reason."""
    journal, plan = pytestconfig.stash[JOURNAL], pytestconfig.stash[PLAN]
    team = pytestconfig.stash[TEAM]

    def measure(case: Case, contender: str, number: int) -> None:
        row = {"level": case.level, "case": case.name, "contender": contender}
        if known := journal.missing((case.level, case.name, contender)):
            raise pytest.skip.Exception(known.reason)
        group = plan.group_of(number)
        try:
            if isinstance(case, AccuracyCase):
                trained = team.train(case, contender, seed=number)
                info = {**_accuracy_info(case, contender, number), **msgspec.to_builtins(trained)}
                seconds = [max(trained.seconds, default=0.0)]
            else:
                if isinstance(case, StartCase):
                    result = team.start(case, contender)
                else:
                    names = [n for n in plan.contenders_of(case) if _has_time(journal, case, n)]
                    turn_s = TURN_S[journal.settings.profile]
                    result = team.turn(
                        case, contender, names, group=group, number=number, seconds=turn_s
                    )
                seconds = list(result.seconds)
                info = msgspec.to_builtins(
                    msgspec.structs.replace(result.info, pass_number=number, process=group)
                )
        except WorkerError as error:
            kind = Failed if error.failed else Absent
            journal.add(kind(**row, reason=str(error)))
            _end_test(str(error), failed=error.failed)
        benchmark.group = f"{case.level}: {case.name}"
        benchmark.extra_info |= info
        passing = iter(seconds)
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            lambda: worker_clock.advance(next(passing)), rounds=len(seconds)
        )

    return measure


def _accuracy_info(case: AccuracyCase, contender: str, seed: int) -> dict[str, Any]:
    return {
        "level": case.level,
        "case": case.name,
        "contender": contender,
        "is_peer": contenders()[contender].is_baseline,
        "network": case.network,
        "batch": case.batch,
        "seed": seed,
        "target": case.target,
    }


def _has_time(journal: Journal, case: Case, contender: str) -> bool:
    """Whether nothing is known to prevent a row from being timed."""
    return journal.missing((case.level, case.name, contender)) is None


def _end_test(reason: str, *, failed: bool) -> NoReturn:
    if failed:
        raise pytest.fail.Exception(reason, pytrace=False) from None
    raise pytest.skip.Exception(reason) from None


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
    output_json |= config.stash[JOURNAL].document()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """End the workers, and record the end of the run before pytest-benchmark writes its files."""
    config = session.config
    config.stash[TEAM].close()
    if exitstatus in COMPLETE and not config.option.collectonly:
        config.stash[JOURNAL].end(host_facts())
    yield
