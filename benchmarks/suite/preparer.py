"""Prepares the rows of a run: builds and checks each row once, and keeps it for later passes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, TypeAlias

import msgspec

from benchmarks.contenders.base import Contender, HostArray, OperationTask
from benchmarks.storage.schema import Check, RowInfo
from benchmarks.suite.cases import InferenceCase, OperationCase, TrainingCase
from benchmarks.suite.checks import (
    STEPS,
    CheckError,
    Trajectory,
    check_inference,
    check_operation,
    check_training,
    first_batches,
    reference_probabilities,
    reference_trajectory,
)
from benchmarks.suite.costs import Cost, forward_cost, operation_cost, training_cost
from benchmarks.suite.memory import peak_memory
from benchmarks.suite.operation_tasks import expected_results, operation_task
from benchmarks.suite.tasks import scaled_images, training_task
from mnist_accel.nn import Linear, Network

Case: TypeAlias = TrainingCase | InferenceCase | OperationCase

# Seconds. The epoch of a slow contender is shortened to about this time. A factor of two is
# accepted, because some contenders compile again for each length of an epoch.
EPOCH_S = 0.15
MAX_LENGTHS = 3  # lengths of an epoch that are tried; the last one is used
MIN_ROUNDS, MAX_ROUNDS = 2, 100
# Warm-up ends after this number of calls or of seconds. In the first 0.1 s, the operating system
# may run two threads on one core, where each waits for the other. A call then takes 8 ms instead
# of 0.1 ms (observed with PyTorch on two cores, in one of eight passes).
WARM_UP_CALLS, WARM_UP_S = 15, 0.12
# Seconds. Shorter calls are repeated within a round, because reading the clock would take a large
# part of the time of a 10 µs call.
MIN_ROUND_S = 5e-4


class NotComparableError(Exception):
    """A contender does not support a case; the message states the reason."""


@dataclass(frozen=True)
class Prepared:
    """A row that passed its check and can be timed.

    Attributes:
        run: makes one call, and returns when its results are available.
        info: the entry of the result file without the times, as for pass 0.
        reset: restores the initial state, such as the weights; called before each pass.
    """

    run: Callable[[], object]
    info: RowInfo
    reset: Callable[[], object] = lambda: None


@dataclass
class Preparer:
    """Prepares each row once. A row that fails raises the same error in later passes.

    Attributes:
        known_steps: steps per epoch by the names of case and contender, as chosen before the run
            was interrupted. In all passes of a row, an epoch has the same number of steps.
        measures_memory: whether to measure the peak memory of each recipe's training, which takes
            seconds.
        clock: returns the current time in seconds.
    """

    known_steps: Mapping[tuple[str, str], int] = field(default_factory=dict)
    measures_memory: bool = False
    clock: Callable[[], float] = time.perf_counter
    _prepared: dict[tuple[Case, str], Prepared | Exception] = field(default_factory=dict)

    def prepare(self, case: Case, contender: Contender) -> Prepared:
        """Return a row that is ready to be timed.

        Raises:
            NotComparableError: the contender does not support the case or cannot run here.
            CheckError: the contender computes a wrong result.
        """
        key = case, contender.name
        if key not in self._prepared:
            try:
                self._prepared[key] = self._prepare(case, contender)
            except (NotComparableError, CheckError) as error:
                self._prepared[key] = error
        prepared = self._prepared[key]
        if isinstance(prepared, Exception):
            raise prepared
        prepared.reset()
        return prepared

    def rounds(self, prepared: Prepared, budget_s: float) -> tuple[int, int]:
        """Warm up; return the rounds that fit into `budget_s` seconds, and the calls per round."""
        seconds = self._warm_up(prepared.run)
        calls = max(1, round(MIN_ROUND_S / seconds))
        fitting = round(budget_s / (calls * seconds))
        return max(MIN_ROUNDS, min(MAX_ROUNDS, fitting)), calls

    def _warm_up(self, run: Callable[[], object]) -> float:
        """Make the warm-up calls; return the seconds of the fastest."""
        fastest = float("inf")
        end = self.clock() + WARM_UP_S
        for _ in range(WARM_UP_CALLS):
            fastest = min(fastest, self._seconds(run))
            if self.clock() >= end:
                break
        return max(fastest, 1e-9)

    def _prepare(self, case: Case, contender: Contender) -> Prepared:
        require_available(contender)
        if isinstance(case, TrainingCase):
            return self._training(case, contender)
        if isinstance(case, InferenceCase):
            return self._inference(case, contender)
        return self._operation(case, contender)

    def _training(self, case: TrainingCase, contender: Contender) -> Prepared:
        task = training_task(case, case.steps)
        if reason := contender.skip_reason(task):
            raise NotComparableError(reason)
        expected = _expected_trajectory(case, contender.ties)
        checked = contender.training(task)
        check = check_training(checked, task, expected)
        known = self.known_steps.get((case.name, contender.name))
        batches = first_batches(task)
        updates_s = self._warm_up(lambda: checked.updates(batches))
        steps = known or _fitting_steps(case, STEPS, updates_s)
        for attempt in range(MAX_LENGTHS):
            task = training_task(case, steps)
            started = self.clock()
            session = contender.training(task)
            session.compile()
            setup_s = self.clock() - started - session.transfer_s - session.compile_s
            first_call_s = self._seconds(session.run)
            if known or attempt == MAX_LENGTHS - 1:
                break
            # A step may take longer or shorter in an epoch than in `updates`, so an epoch is timed.
            fitting = _fitting_steps(case, steps, self._seconds(session.run))
            if steps / 2 <= fitting <= steps * 2:
                break
            steps = fitting
        images = steps * case.batch
        phases_s = {
            "setup": setup_s,
            "transfer": session.transfer_s,
            # If `session` uses code that `checked` compiled, its own time is 0.
            "compile": max(checked.compile_s, session.compile_s),
            "first_call": first_call_s,
        }
        info = _info(
            case, contender, training_cost(task.model) * images, phases_s, check, task.model
        )
        info = msgspec.structs.replace(info, images=images, steps=steps, sweeps=case.sweeps)
        if self.measures_memory and "recipe" in case.sweeps:
            host_bytes, device_bytes = peak_memory(case.network, case.batch, contender.name)
            info = msgspec.structs.replace(
                info, peak_host_bytes=host_bytes, peak_device_bytes=device_bytes
            )
        return Prepared(session.run, info, session.reset)

    def _inference(self, case: InferenceCase, contender: Contender) -> Prepared:
        model = case.model()
        if reason := contender.inference_skip_reason(model, case.batch):
            raise NotComparableError(reason)
        images = scaled_images(case.batch)
        started = self.clock()
        predict = contender.inference(model)
        phases_s = {"setup": self.clock() - started, "transfer": 0.0, "compile": 0.0}
        phases_s["first_call"] = self._seconds(lambda: predict(images))
        check = check_inference(predict(images), _expected_probabilities(case), model)
        cost = forward_cost(model) * case.batch
        return Prepared(
            lambda: predict(images), _info(case, contender, cost, phases_s, check, model)
        )

    def _operation(self, case: OperationCase, contender: Contender) -> Prepared:
        task, expected = _expected_results(case)
        started = self.clock()
        session = contender.operation(task)
        phases_s = {"setup": self.clock() - started, "transfer": 0.0, "compile": 0.0}
        if session is None:
            raise NotComparableError(f"{contender.name} does not implement this operation")
        check = check_operation(session.results(), expected, task)
        phases_s["first_call"] = self._seconds(session.run)
        cost = operation_cost(task, expected)
        return Prepared(session.run, _info(case, contender, cost, phases_s, check))

    def _seconds(self, work: Callable[[], object]) -> float:
        started = self.clock()
        work()
        return self.clock() - started


def require_available(contender: Contender) -> None:
    """Raise `NotComparableError`, with reason and remedy, if a contender cannot run here."""
    availability = contender.availability()
    if not availability.ok:
        raise NotComparableError(
            "; ".join(filter(None, (availability.reason, availability.remedy)))
        )


def _fitting_steps(case: TrainingCase, steps: int, seconds: float) -> int:
    """Return the steps that fit into `EPOCH_S`, at most those of the case.

    `seconds` is the time that `steps` steps take.
    """
    return max(1, min(case.steps, int(steps * EPOCH_S / seconds)))


def _info(
    case: Case,
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


# These results of the reference are computed once per case, and compared with all contenders.


@cache
def _expected_results(case: OperationCase) -> tuple[OperationTask, list[HostArray]]:
    task = operation_task(case)
    return task, expected_results(task)


@cache
def _expected_probabilities(case: InferenceCase) -> HostArray:
    return reference_probabilities(case.model(), scaled_images(case.batch))


@cache
def _expected_trajectory(case: TrainingCase, ties: Literal["first", "recipe"]) -> Trajectory:
    return reference_trajectory(training_task(case, case.steps), ties)
