"""Options and fixtures of all tests."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from backends import (
    ACTIVATIONS,
    LOSSES,
    OPTIMIZERS,
    Backend,
    available_backends,
    get_backend,
    register,
)
from mnist_accel.console import activity
from mnist_accel.data import Dataset, load_dataset
from mnist_accel.nn import LAYERS, SCHEDULES
from mnist_accel.recipes.models import RECIPES
from tests.support.cuda_emulator.build import unavailable_reason
from tests.support.emulated_backend import EmulatedBackend
from tests.support.strict_backend import StrictBackend

register(EmulatedBackend)
register(StrictBackend)

# The list is static, so a backend that cannot run here is reported as skipped, with the reason.
BACKENDS = [
    "numpy",
    "numba",
    StrictBackend.name,
    "torch",
    EmulatedBackend.name,
    pytest.param("cupy", marks=pytest.mark.gpu),
    *(plug_in.name for plug_in in entry_points(group="mnist_accel.backends")),
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-backend",
        action="append",
        default=[],
        metavar="NAME",
        help="fail instead of skip the tests of this backend if it cannot run (repeatable)",
    )
    parser.addoption(
        "--fuzz-minutes",
        type=float,
        default=0,
        metavar="N",
        help="change files at random for N minutes in place of a fixed number of times",
    )
    parser.addoption(
        "--crash-every",
        type=int,
        default=0,
        metavar="N",
        help="stop trainings at every N-th operation on files in place of a few of them",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A process that a shell started in the background ignores SIGINT, and so do its children. Some
    # tests send SIGINT to their children.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # `nohup` makes a process and its children ignore SIGHUP. With a handler, the children do not.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    for name in config.getoption("--require-backend"):
        if name not in available_backends():
            known = ", ".join(available_backends())
            raise pytest.UsageError(
                f"--require-backend: unknown backend {name}; choose from {known}"
            )


@pytest.fixture(autouse=True)
def no_lines_about_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands print lines about waits of a second or more, which depend on the machine's load."""
    monkeypatch.setattr(activity, "DELAY_SECONDS", 600.0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print why tests were skipped, one line per reason."""
    reasons = Counter(
        str(report.longrepr[2]).removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
    )
    if reasons:
        terminalreporter.section("skipped")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:4} tests: {reason}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need another system.

    Tests of the CUDA emulator run without it in their variants for a GPU.
    """
    if item.get_closest_marker("posix") and os.name != "posix":
        pytest.skip("needs a POSIX system")
    needs_emulator = item.get_closest_marker("emulated") and not item.get_closest_marker("gpu")
    if needs_emulator and unavailable_reason():
        pytest.skip(unavailable_reason())


@pytest.fixture(autouse=True)
def autotune_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cache autotune results in a folder of the test instead of the user's cache."""
    folder = tmp_path.with_name(f"{tmp_path.name}-cache")
    monkeypatch.setattr("mnist_accel.autotune.cache.cache_folder", lambda name: folder / name)
    return folder / "trials"


@pytest.fixture
def own_tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After the test, remove the entries that it added to the tables."""
    for table in (ACTIVATIONS, LOSSES, OPTIMIZERS, LAYERS, SCHEDULES):
        monkeypatch.setattr(table, "data", dict(table))
    recipes = dict(RECIPES)
    yield
    RECIPES.clear()
    RECIPES.update(recipes)


@pytest.fixture(scope="session")
def mnist() -> Dataset:
    """Return MNIST, from this machine or downloaded."""
    return load_dataset("mnist")


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Return each backend in turn."""
    name: str = request.param
    availability = available_backends()[name]
    if not availability.ok:
        message = f"{name} cannot run here: {availability.reason}; {availability.remedy}"
        if name in request.config.getoption("--require-backend"):
            pytest.fail(message)
        pytest.skip(message)
    return get_backend(name)
