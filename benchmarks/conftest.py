"""Turns cases into pytest-benchmark tests: which there are, in what order, and what is recorded.

`python -m benchmarks run` is the front door; `pytest benchmarks/` works too, with all options of
pytest-benchmark. Every pair of case and contender is measured once a pass, and all pairs of all
passes are shuffled together, so that a machine that slows down slows all of them.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.cases import (
    LEVELS,
    PROFILES,
    Profile,
    accuracy_cases,
    inference_cases,
    operation_cases,
    training_cases,
)
from benchmarks.checks import CheckError
from benchmarks.contenders import choose, contenders
from benchmarks.contenders.base import Contender
from benchmarks.laboratory import LEVEL_OF, Case, Laboratory, NotComparableError, Prepared
from benchmarks.record import Record
from mnist_accel.errors import UsageError

# Seconds that a pair is measured for in each pass.
BUDGET_S = {"quick": 0.1, "full": 0.3}
PASSES = {"quick": 3, "full": 5}
SEEDS = 3
# Compiling takes these too long for a quick look.
NOT_QUICK = ("torch-compile",)
CASES: dict[str, Callable[[Profile], Sequence[Any]]] = {
    "training": training_cases,
    "inference": inference_cases,
    "operations": operation_cases,
    "accuracy": accuracy_cases,
}
Measure: TypeAlias = Callable[[Case, Contender, int], None]
RECORD = pytest.StashKey[Record]()
SESSION = pytest.StashKey[pytest.Session]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suite."""
    group = parser.getgroup("mnist_accel benchmarks")
    group.addoption("--profile", choices=PROFILES, default="quick", help="which cases there are")
    group.addoption("--passes", type=int, help="how often each pair is measured")
    group.addoption("--levels", default=",".join(LEVELS), help="some of " + ",".join(LEVELS))
    group.addoption("--contenders", help="names, with commas; all if not given")
    group.addoption("--order-seed", type=int, default=0, help="of the order of the measurements")
    group.addoption("--journal", help="file that every measurement is added to at once")


def pytest_configure(config: pytest.Config) -> None:
    """Let the peers warn, and open the record of this run."""
    config.addinivalue_line("filterwarnings", "default")
    profile = config.getoption("profile")
    try:
        _chosen(config)
        config.stash[RECORD] = Record(
            profile=profile,
            levels=config.getoption("levels").split(","),
            passes=config.getoption("passes") or PASSES[profile],
            seed=config.getoption("order_seed"),
            journal=config.getoption("journal"),
        )
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each level its cases, contenders and passes."""
    if "case" not in metafunc.fixturenames:
        return
    config = metafunc.config
    level = metafunc.function.__name__.removeprefix("test_")
    profile = config.getoption("profile")
    is_wanted = level in config.getoption("levels").split(",")
    cases = CASES[level](profile) if is_wanted else ()
    repetitions = SEEDS if level == "accuracy" else config.stash[RECORD].passes
    metafunc.parametrize(
        ("case", "contender", "repetition"),
        [
            pytest.param(case, contender, repetition, id=f"{case.name}-{name}-{repetition}")
            for case in cases
            for name, contender in _chosen(config).items()
            for repetition in range(repetitions)
        ],
    )


def _chosen(config: pytest.Config) -> dict[str, Contender]:
    """Return the contenders that were asked for."""
    names = config.getoption("contenders")
    if names is not None:
        return choose(names)
    quick = config.getoption("profile") == "quick"
    return {name: one for name, one in contenders().items() if not (quick and name in NOT_QUICK)}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle, and leave out what an earlier run has measured already."""
    record = config.stash[RECORD]
    random.Random(record.seed).shuffle(items)  # noqa: S311  # an order, not a secret
    items[:] = [item for item in items if item.nodeid not in record.done]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Keep the session, which knows at its end whether it was interrupted."""
    session.config.stash[SESSION] = session


@pytest.fixture(scope="session")
def record(pytestconfig: pytest.Config) -> Record:
    """What this run has found so far."""
    return pytestconfig.stash[RECORD]


@pytest.fixture(scope="session")
def laboratory(pytestconfig: pytest.Config, record: Record) -> Laboratory:
    """Prepares every pair once for all passes."""
    return Laboratory(steps_before=record.steps, weighs=pytestconfig.getoption("profile") == "full")


@pytest.fixture
def measure(benchmark: BenchmarkFixture, laboratory: Laboratory, record: Record) -> Measure:
    """Check a pair, and time it; one that is absent or wrong is recorded with the reason."""

    def measure(case: Case, contender: Contender, repetition: int) -> None:
        level = LEVEL_OF[type(case)]
        try:
            prepared = laboratory.prepare(case, contender)
        except NotComparableError as reason:
            record.absent(level, case.name, contender, str(reason))
            raise pytest.skip.Exception(str(reason)) from None
        except CheckError as reason:
            record.failed(level, case.name, contender, str(reason))
            raise pytest.fail.Exception(str(reason), pytrace=False) from None
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
        rounds, calls = laboratory.rounds(prepared, BUDGET_S[record.profile])
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
        "peak_host_bytes": prepared.peak_host_bytes,
        "peak_device_bytes": None,
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
    """Complete the file that pytest-benchmark writes."""
    came_to_end = config.stash[SESSION].exitstatus in (
        pytest.ExitCode.OK,
        pytest.ExitCode.TESTS_FAILED,
    )
    config.stash[RECORD].complete(output_json, came_to_end=came_to_end)
