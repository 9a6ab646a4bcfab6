"""Prepares the rows of one contender in its process: builds, checks and times them."""

import gc
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.contenders.base import Contender, TrainingSession, explanation
from benchmarks.storage.schema import Check, RowInfo
from benchmarks.suite.cases import (
    FULL_SET,
    InferenceCase,
    OperationCase,
    StartCase,
    TimedCase,
    TrainingCase,
)
from benchmarks.suite.checks import (
    check_first_update,
    check_inference,
    check_operation,
    check_training,
    first_batches,
)
from benchmarks.suite.costs import Cost, forward_cost, operation_cost, training_cost
from benchmarks.suite.expected import read_results, read_trajectory
from benchmarks.suite.operation_tasks import operation_task
from benchmarks.suite.tasks import scaled_images, training_task
from mnist_accel.nn import Linear, Network

Clock = Callable[[], float]

# Seconds. The epoch of a slow contender is shortened to about this time. A factor of two is
# accepted, because some contenders compile again for each length of an epoch.
EPOCH_S = 0.08
MAX_LENGTHS = 3  # lengths of an epoch that are tried; the last one is used
MIN_ROUNDS, MAX_ROUNDS = 1, 100
# In these seconds, the threads of the contender wake up, those of the contender before it fall
# asleep, and the system moves threads that it has started on one core to different ones.
WARM_UP_S = 0.1
# Seconds. Shorter calls are repeated within a round, because reading the clock would take a large
# part of the time of a 10 µs call.
MIN_ROUND_S = 5e-4


class NotComparableError(Exception):
    """A contender does not support a case; the message states the reason."""


@dataclass(frozen=True)
class Row:
    """A row that passed its check and can be timed.

    Attributes:
        run: makes one call, and returns when its results are available.
        info: the entry of the result file without the times, as for pass 0.
        clock: returns the time in seconds.
    """

    run: Callable[[], object]
    info: RowInfo
    clock: Clock = time.perf_counter

    def turn(self, budget_s: float) -> tuple[float, ...]:
        """Warm up; return the seconds per call of the rounds that fit into `budget_s` seconds."""
        seconds = warm_up(self.run, self.clock)
        calls = max(1, round(MIN_ROUND_S / seconds))
        rounds = max(MIN_ROUNDS, min(MAX_ROUNDS, round(budget_s / (calls * seconds))))
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            return tuple(self._round(calls) for _ in range(rounds))
        finally:
            if was_enabled:
                gc.enable()

    def _round(self, calls: int) -> float:
        started = self.clock()
        for _ in range(calls):
            self.run()
        return (self.clock() - started) / calls


def warm_up(run: Callable[[], object], clock: Clock) -> float:
    """Make the warm-up calls; return the seconds of the fastest."""
    end = clock() + WARM_UP_S
    fastest = seconds_of(run, clock)
    while clock() < end:
        fastest = min(fastest, seconds_of(run, clock))
    return max(fastest, 1e-9)


def prepare(
    case: TrainingCase | InferenceCase | OperationCase,
    contender: Contender,
    expected: str,
    *,
    known_steps: int | None = None,
    clock: Clock = time.perf_counter,
) -> Row:
    """Return a row that is ready to be timed.

    Args:
        case: what is measured.
        contender: what measures it.
        expected: path of the file with the results of the reference.
        known_steps: updates per epoch; None to choose them by the speed of the contender.
        clock: returns the time in seconds.

    Raises:
        NotComparableError: the contender does not support the case or cannot run here.
        CheckError: the contender computes a wrong result.
    """
    require_available(contender)
    match case:
        case TrainingCase():
            return _Training(case, contender, expected, clock).prepare(known_steps)
        case InferenceCase():
            return _inference(case, contender, expected, clock)
        case OperationCase():
            return _operation(case, contender, expected, clock)


def require_available(contender: Contender) -> None:
    """Raise `NotComparableError`, with reason and remedy, if a contender cannot run here."""
    availability = contender.availability()
    if not availability.ok:
        raise NotComparableError(explanation(availability))


@dataclass(frozen=True)
class _Training:
    """Prepares a training."""

    case: TrainingCase
    contender: Contender
    expected: str
    clock: Clock

    def prepare(self, known_steps: int | None) -> Row:
        """Return the row; arguments and errors as the function `prepare`."""
        task = training_task(self.case, self.case.steps)
        if reason := self.contender.skip_reason(task):
            raise NotComparableError(reason)
        session, phases_s = self._timed_session(self.case.steps)
        check = check_training(session, task, read_trajectory(self.expected))
        steps = self.case.steps
        if self.case.call == "step":
            known_steps = steps
        fitting = known_steps or self._estimated_steps(session)
        first = True
        for attempt in range(MAX_LENGTHS):
            if fitting != steps:
                steps = fitting
                session, later_s = self._timed_session(steps)
                # A session that uses code of an earlier one has a compile time of 0.
                phases_s = {**later_s, "compile": max(phases_s["compile"], later_s["compile"])}
                first = True
            run = self._call(session)
            if first:
                started = self.clock()
                session.compile()
                phases_s["compile"] += self.clock() - started
                phases_s["first_call"] = seconds_of(run, self.clock)
                first = False
            if known_steps or attempt == MAX_LENGTHS - 1:
                break
            # A step may take longer or shorter in an epoch than in `updates`, so it is timed.
            fitting = self._fitting_steps(steps, seconds_of(run, self.clock))
            if steps / 2 <= fitting <= steps * 2:
                break
        steps_per_call = 1 if self.case.call == "step" else steps
        images = steps_per_call * self.case.batch
        cost = training_cost(task.model, task.images.dtype.itemsize) * images
        info = row_info(self.case, self.contender, cost, phases_s, check, task.model)
        info = msgspec.structs.replace(
            info, images=images, steps=steps_per_call, sweeps=self.case.sweeps
        )
        return Row(run, info, self.clock)

    def _timed_session(self, steps: int) -> tuple[TrainingSession, dict[str, float]]:
        """Return a session for epochs of this length, and the seconds that making it took."""
        task = training_task(self.case, steps)
        started = self.clock()
        session = self.contender.training(task)
        seconds = self.clock() - started
        return session, {
            "setup": max(0.0, seconds - session.transfer_s - session.compile_s),
            "transfer": session.transfer_s,
            "compile": session.compile_s,
        }

    def _call(self, session: TrainingSession) -> Callable[[], object]:
        """Return the call that is timed."""
        run: Callable[[], object] = {
            "epoch": session.run,
            "raw": session.run_from_arrays,
            "step": session.step,
        }[self.case.call]
        if self.case.call != "epoch":
            try:
                run()
            except NotImplementedError:
                what = {"raw": "an epoch from raw arrays", "step": "a single step"}[self.case.call]
                raise NotComparableError(f"{self.contender.name} does not have {what}") from None
        return run

    def _estimated_steps(self, session: TrainingSession) -> int:
        """Return the length of an epoch that the time of the checked updates suggests."""
        batches = first_batches(training_task(self.case, self.case.steps))
        seconds = warm_up(lambda: session.updates(batches), self.clock)
        session.reset()
        return self._fitting_steps(len(batches), seconds)

    def _fitting_steps(self, steps: int, seconds: float) -> int:
        """Return the steps that fit into `EPOCH_S`, at most those of the case.

        `seconds` is the time that `steps` steps take.
        """
        return max(1, min(self.case.steps, int(steps * EPOCH_S / seconds)))


def _inference(case: InferenceCase, contender: Contender, expected: str, clock: Clock) -> Row:
    model = case.model()
    if reason := contender.inference_skip_reason(model, case.batch):
        raise NotComparableError(reason)
    images = scaled_images(case.batch)
    started = clock()
    predict = contender.inference(model)
    phases_s = {"setup": clock() - started, "transfer": 0.0, "compile": 0.0}
    phases_s["first_call"] = seconds_of(lambda: predict(images), clock)
    (probabilities,) = read_results(expected)
    check = check_inference(predict(images), probabilities, model)
    cost = forward_cost(model) * case.batch
    info = row_info(case, contender, cost, phases_s, check, model)
    return Row(lambda: predict(images), info, clock)


def _operation(case: OperationCase, contender: Contender, expected: str, clock: Clock) -> Row:
    task, results = operation_task(case), read_results(expected)
    started = clock()
    session = contender.operation(task)
    phases_s = {"setup": clock() - started, "transfer": 0.0, "compile": 0.0}
    if session is None:
        raise NotComparableError(f"{contender.name} does not implement this operation")
    check = check_operation(session.results(), results, task)
    phases_s["first_call"] = seconds_of(session.run, clock)
    info = row_info(case, contender, operation_cost(task, results), phases_s, check)
    return Row(session.run, info, clock)


def start(case: StartCase, contender: Contender, expected: str) -> RowInfo:
    """Make the first update of a training on the whole training set; return the entry of its row.

    Raises:
        NotComparableError: the contender does not support the training or cannot run here.
        CheckError: the loss of the update is wrong.
    """
    require_available(contender)
    training = case.training()
    task = training_task(training, FULL_SET // case.batch)
    if reason := contender.skip_reason(task):
        raise NotComparableError(reason)
    session = contender.training(task)
    losses = session.updates(first_batches(task)[:1])
    check = check_first_update(losses[0], read_trajectory(expected), task)
    info = row_info(case, contender, Cost(0, 0), {}, check, task.model)
    return msgspec.structs.replace(
        info,
        images=0,
        peak_host_bytes=own_peak_bytes(),
        peak_device_bytes=contender.peak_device_bytes(),
    )


def seconds_of(work: Callable[[], object], clock: Clock) -> float:
    """Return the seconds that a call takes."""
    started = clock()
    work()
    return clock() - started


def row_info(
    case: TimedCase | StartCase,
    contender: Contender,
    cost: Cost,
    phases_s: Mapping[str, float],
    check: Check,
    model: Network | None = None,
) -> RowInfo:
    """Return the facts of a measurement in which each call computes one batch without training."""
    layers = model.layers if model else ()
    hidden = [layer.units for layer in layers if isinstance(layer, Linear)][:-1]
    return RowInfo(
        level=case.level,
        name=case.name,
        network=case.operation if isinstance(case, OperationCase) else case.network,
        batch=case.batch,
        width=max(hidden, default=None),
        depth=sum(layer.kind in ("linear", "conv2d") for layer in layers) if model else 1,
        sweeps=(),
        contender=contender.name,
        is_baseline=contender.is_baseline,
        pass_number=0,
        images=case.batch,
        steps=0,
        flops=cost.flops,
        bytes=cost.bytes,
        phases_s=phases_s,
        check=check,
        peak_host_bytes=None,
        peak_device_bytes=None,
    )


def own_peak_bytes() -> int | None:
    """Return the peak resident memory of this process; None on Windows.

    On Linux, a child inherits `ru_maxrss` from its parent, so the value is read from /proc.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        try:
            import resource
        except ModuleNotFoundError:  # on Windows
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    return peak_bytes(status)


def peak_bytes(status: Path) -> int:
    """Return the peak resident memory of a process on Linux from its file `status` in /proc."""
    fields = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines())
    kibibytes, _ = fields["VmHWM"].split()
    return int(kibibytes) * 1024
