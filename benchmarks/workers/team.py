"""The workers of a run: starts them, prepares a case in all of them, and gives them turns."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from benchmarks.contenders import contenders
from benchmarks.storage.schema import RowInfo
from benchmarks.suite.accuracy import Trained
from benchmarks.suite.cases import AccuracyCase, PopulationCase, StartCase, TimedCase, TrainingCase
from benchmarks.suite.expected import expected_file
from benchmarks.workers.messages import (
    Describe,
    Description,
    Prepare,
    Prepared,
    Start,
    Started,
    TakeTurn,
    Timed,
    TrainToAccuracy,
)
from benchmarks.workers.process import WorkerError, WorkerProcess
from mnist_accel.errors import DataError

# Seconds after which a worker counts as hanging. Preparing includes compiling.
START_LIMIT_S, PREPARE_LIMIT_S, TURN_LIMIT_S, ACCURACY_LIMIT_S = 120.0, 300.0, 60.0, 1200.0

_Member = tuple[str, int | None]  # a contender, and the number of cores that it may use


@dataclass(frozen=True)
class Result:
    """The seconds per call of a turn, and the entry of the result file."""

    seconds: Sequence[float]
    info: RowInfo


@dataclass
class Team:
    """The workers of a run, one process per contender and group of passes.

    Attributes:
        steps: updates per epoch by the names of case and contender. In all passes of a row, an
            epoch has the same number of steps.
        limits: seconds after which a worker counts as hanging: for preparing, and for a turn.
        before_turn: waits until the machine is ready; returns the nanoseconds of a barrier of two
            threads, or None.
    """

    steps: dict[tuple[str, str], int] = field(default_factory=dict)
    limits: tuple[float, float] = (PREPARE_LIMIT_S, TURN_LIMIT_S)
    before_turn: Callable[[], float | None] = lambda: None
    _group: int | None = None
    _case: TimedCase | None = None
    _workers: dict[_Member, WorkerProcess] = field(default_factory=dict)
    _rows: dict[str, RowInfo | WorkerError] = field(default_factory=dict)
    _folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="benchmarks-")))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def describe(self, names: Sequence[str]) -> dict[str, Description]:
        """Return what the contenders are; they describe themselves at the same time."""
        self._group = 0
        for name in names:
            self._worker((name, None)).send(Describe())
        descriptions = {}
        for name in names:
            worker = self._worker((name, None))
            descriptions[name] = worker.receive(Description, limit_s=START_LIMIT_S)
        return descriptions

    def turn(
        self,
        case: TimedCase,
        name: str,
        others: Sequence[str],
        *,
        group: int,
        number: int,
        seconds: float,
    ) -> Result:
        """Give a contender a turn; before the first turn of a case, prepare it in all workers.

        Args:
            case: what is measured.
            name: the contender.
            others: all contenders that have turns in this case.
            group: number of the group of processes; a new number starts new processes.
            number: number of the pass, the seed of an estimator.
            seconds: length of the turn.

        Raises:
            WorkerError: the row has no time.
        """
        self._start_group(group)
        if self._case != case:
            if isinstance(case, PopulationCase) and not group:
                self._close_workers()  # the peak memory is that of a process with only this case
            self._prepare(case, others)
        row = self._rows[name]
        if isinstance(row, WorkerError):
            raise row
        barrier_ns = self.before_turn()
        try:
            worker = self._worker((name, _threads(case)))
            timed = worker.ask(TakeTurn(seconds, number), Timed, limit_s=self.limits[1])
        except WorkerError as error:
            self._rows[name] = error
            raise
        info = msgspec.structs.replace(row, fit=timed.fit, barrier_ns=barrier_ns)
        return Result(timed.seconds, info)

    def start(self, case: StartCase, name: str) -> Result:
        """Time a new process from its start to the end of its first update.

        Raises:
            WorkerError: the row has no time.
        """
        self._close_workers()  # they would take memory and cores from the new process
        caches = self._folder / "start" / name / case.network
        if case.cache == "cold":
            shutil.rmtree(caches, ignore_errors=True)
        elif not caches.exists():
            self._time_start(case, name, caches)  # leaves its compiled code
        return self._time_start(case, name, caches)

    def train(self, case: AccuracyCase, name: str, *, seed: int) -> Trained:
        """Train to an accuracy, in a new process.

        Raises:
            WorkerError: the contender does not support the training, or failed.
        """
        self._close_workers()
        worker = self._worker((name, None))
        return worker.ask(TrainToAccuracy(case, seed), Trained, limit_s=ACCURACY_LIMIT_S)

    def close(self) -> None:
        """End all workers, and remove what they compiled."""
        self._close_workers()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start_group(self, group: int) -> None:
        if self._group != group:
            self._close_workers()
            self._group = group

    def _prepare(self, case: TimedCase, names: Sequence[str]) -> None:
        """Prepare a case in all workers.

        In the first group, one worker after the other does so, because the phases before the steady
        state are timed. Later groups load what the first one compiled, all at the same time.
        """
        self._case, self._rows = case, {}
        for together in [names] if self._group else [[name] for name in names]:
            for name in [name for name in together if self._request(case, name)]:
                self._receive(case, name)

    def _request(self, case: TimedCase, name: str) -> bool:
        """Ask a worker to prepare the case; return whether it could be asked."""
        known = self.steps.get((case.name, name))
        try:
            expected = expected_file(case, contenders()[name].ties, self._folder)
            self._worker((name, _threads(case))).send(Prepare(case, str(expected), known))
        except WorkerError as error:
            self._rows[name] = error
        except (DataError, ImportError) as error:  # no Fashion-MNIST, or no scikit-learn
            self._rows[name] = WorkerError(str(error), failed=False)
        return name not in self._rows

    def _receive(self, case: TimedCase, name: str) -> None:
        """Keep what a worker has prepared, or why it could not."""
        try:
            worker = self._workers[name, _threads(case)]
            info = worker.receive(Prepared, limit_s=self.limits[0]).info
        except WorkerError as error:
            self._rows[name] = error
            return
        if self._group:
            info = msgspec.structs.replace(info, phases_s={}, peak_host_bytes=None)
        if isinstance(case, TrainingCase | PopulationCase):
            self.steps.setdefault((case.name, name), info.steps)
        self._rows[name] = info

    def _worker(self, member: _Member) -> WorkerProcess:
        """Return the worker of a contender; start one if there is none, or if it has ended."""
        worker = self._workers.get(member)
        if worker is None or not worker.is_running:
            if worker is not None:
                worker.close()
            name, threads = member
            worker = WorkerProcess(
                name, cores=_cores(threads), environment=_environment(self._folder / "compiled")
            )
            self._workers[member] = worker
        return worker

    def _time_start(self, case: StartCase, name: str, caches: Path) -> Result:
        expected = expected_file(case, contenders()[name].ties, self._folder)
        environment = {**_environment(caches), "NUMBA_CACHE_DIR": str(caches / "numba")}
        began = time.perf_counter()
        worker = WorkerProcess(name, environment=environment)
        try:
            request = Start(case, str(expected))
            started = worker.ask(request, Started, limit_s=self.limits[0])
            return Result([time.perf_counter() - began], started.info)
        finally:
            worker.close()

    def _close_workers(self) -> None:
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
        self._case = None


def _threads(case: TimedCase) -> int | None:
    return case.threads if isinstance(case, TrainingCase) else None


def _cores(threads: int | None) -> list[int] | None:
    """Return the cores of a worker that may use this number of threads; None for all.

    Raises:
        WorkerError: this system cannot bind processes to cores.
    """
    if threads is None:
        return None
    if not hasattr(os, "sched_getaffinity"):
        raise WorkerError("this system cannot bind a process to cores", failed=False)
    return sorted(os.sched_getaffinity(0))[:threads]


def _environment(caches: Path) -> Mapping[str, str]:
    """Return the variables that put compiled code into a folder, which is created."""
    caches.mkdir(parents=True, exist_ok=True)
    return {
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
        "JAX_COMPILATION_CACHE_DIR": str(caches / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        # JAX would reserve three quarters of the GPU, which all workers share.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
