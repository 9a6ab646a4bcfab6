"""Workers measure in their own process; one that crashes, hangs or prints costs one row only."""

import os
import signal
import subprocess
import sys

import pytest

from benchmarks.contenders import contenders
from benchmarks.contenders.project import ProjectBackend
from benchmarks.suite.cases import InferenceCase, OperationCase, StartCase, TrainingCase
from benchmarks.workers.messages import Describe, Description, TakeTurn, Timed
from benchmarks.workers.process import WorkerError, WorkerProcess
from benchmarks.workers.team import Team

UPDATE = OperationCase("sgd_update", "forward", (1000,), 1, (("lr", 1e-3),))
POOL = OperationCase("max_pool2d", "forward", (2, 8, 8), 3, (("size", 2),))
LOSS = OperationCase("softmax_cross_entropy", "forward", (10,), 4)
LINEAR = OperationCase("linear", "forward", (6,), 3, (), (6, 5))

FAULTY = """
import os
import signal
import sys
import time
from backends.numpy.backend import NumpyBackend

print("a library prints this when it is imported")


class Faulty(NumpyBackend):
    name = "faulty"

    def max_pool2d(self, *arrays, **settings):
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    def linear(self, *arrays):
        time.sleep(600)

    def loss(self, *arrays, **settings):
        raise RuntimeError("no such loss\\nand much more")
"""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """Install the backend `faulty` for the workers, as a package with an entry point."""
    folder = tmp_path_factory.mktemp("plug-in")
    (folder / "faulty_backend.py").write_text(FAULTY)
    facts = folder / "faulty-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[mnist_accel.backends]\nfaulty = faulty_backend:Faulty\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setitem(contenders(), "faulty", ProjectBackend("faulty"))
        yield "faulty"


@pytest.fixture(scope="module")
def team():
    with Team() as running:
        yield running


def _turn(team, case, name, *, others=None, group=0):
    return team.turn(case, name, others or [name], group=group, number=0, seconds=0.01)


def test_turns_of_real_contenders_are_checked_and_timed(team):
    names = ["numpy", "loops"]
    for case in (UPDATE, InferenceCase("cnn", 1), TrainingCase("cnn", 1)):
        result = _turn(team, case, "numpy", others=names)
        assert all(0 < seconds < 10 for seconds in result.seconds)
        assert result.info.check.difference <= result.info.check.tolerance
        assert (result.info.level, result.info.name) == (case.level, case.name)
    assert _turn(team, TrainingCase("cnn", 1), "loops", others=names).info.steps < 1000
    with pytest.raises(WorkerError, match="its loops support the network cnn") as caught:
        _turn(team, InferenceCase("two-layer", 1), "loops")
    assert not caught.value.failed


@pytest.mark.parametrize(
    "case",
    [
        TrainingCase("two-layer", 512, call="raw"),
        TrainingCase("two-layer", 64, call="step"),
        TrainingCase("two-layer", 64, images="dense", inputs=100),
    ],
)
def test_other_calls_and_data_can_be_timed(team, case):
    result = _turn(team, case, "numpy")
    assert result.info.name == case.name
    assert result.info.steps == 1 or case.call != "step"


def test_new_group_has_new_processes_with_the_same_length_of_an_epoch(team):
    case = TrainingCase("two-layer", 64)
    first = _turn(team, case, "numpy", group=0)
    process = team._workers["numpy", None]
    assert first.info.phases_s["first_call"] > 0
    second = _turn(team, case, "numpy", group=1)
    assert team._workers["numpy", None] is not process
    assert not process.is_running
    assert second.info.steps == first.info.steps
    assert second.info.phases_s == {}


@pytest.mark.posix
def test_worker_can_be_bound_to_fewer_cores(team):
    cores = sorted(os.sched_getaffinity(0))
    _turn(team, TrainingCase("cnn", 1, threads=1), "numpy")
    worker = team._workers["numpy", 1]
    assert os.sched_getaffinity(worker._process.pid) == set(cores[:1])


def test_start_of_a_process_is_timed_until_the_first_update(team):
    result = team.start(StartCase("two-layer", 512, "second"), "numpy")
    assert len(result.seconds) == 1
    assert 0.1 < result.seconds[0] < 100
    assert result.info.peak_host_bytes > 60_000 * 784
    assert result.info.check.difference < 1e-3


@pytest.mark.posix
def test_crash_and_error_cost_one_row_and_printing_costs_nothing(team, faulty):
    with pytest.raises(WorkerError, match=r"crashed \(SIGKILL\): last words") as caught:
        _turn(team, POOL, faulty, group=2)
    assert caught.value.failed
    with pytest.raises(WorkerError, match=r"^RuntimeError: no such loss$"):
        _turn(team, LOSS, faulty, group=2)
    # The worker was started again, and prints to stdout at its start.
    assert _turn(team, UPDATE, faulty, others=[faulty, "numpy"], group=2).seconds
    assert _turn(team, UPDATE, "numpy", others=[faulty, "numpy"], group=2).seconds


def test_worker_that_hangs_is_ended(faulty):
    with Team() as team:
        _turn(team, UPDATE, faulty)
        hanging = team._workers[faulty, None]
        team.limits = (1.0, 1.0)
        with pytest.raises(WorkerError, match="no answer within 1 s; its process was ended"):
            _turn(team, LINEAR, faulty)
        assert not hanging.is_running


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("for line in sys.stdin: print('Hello!', flush=True)", "no answer: b'Hello!"),
        ("for line in sys.stdin: print('{}', flush=True)", "no answer: b'{}"),
        (
            """for line in sys.stdin: print('{"type": "timed", "seconds": []}', flush=True)""",
            "no answer",
        ),
        ("sys.exit('cannot start')", r"crashed \(exit code 1\): cannot start"),
    ],
)
def test_process_that_sends_something_else_is_ended(monkeypatch, code, message):
    start = subprocess.Popen
    command = [sys.executable, "-c", f"import sys\n{code}"]
    monkeypatch.setattr(subprocess, "Popen", lambda _, **options: start(command, **options))
    worker = WorkerProcess("numpy")
    with pytest.raises(WorkerError, match=message):
        worker.ask(Describe(), Description, limit_s=60)
    worker.close()
    assert not worker.is_running


@pytest.mark.posix
def test_worker_ends_if_its_coordinator_ends():
    worker = WorkerProcess("numpy")
    worker.ask(Describe(), Description, limit_s=60)
    worker._process.send_signal(signal.SIGINT)  # Ctrl-C in a terminal
    assert worker.ask(Describe(), Description, limit_s=60)
    worker._process.stdin.close()
    assert worker._process.wait(timeout=60) == 0
    worker.close()


def test_turn_without_a_prepared_row_is_refused():
    worker = WorkerProcess("numpy")
    with pytest.raises(WorkerError, match="must be prepared before its turn"):
        worker.ask(TakeTurn(0.1), Timed, limit_s=60)
    worker.close()
