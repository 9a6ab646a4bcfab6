"""Prepares what is measured: builds it, checks it, and keeps it for later passes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import (
    AccuracyCase,
    InferenceCase,
    OperationCase,
    TrainingCase,
    depth,
    width,
)
from benchmarks.checks import (
    STEPS,
    Check,
    CheckError,
    Trajectory,
    check_inference,
    check_operation,
    check_training,
    first_batches,
    reference_probabilities,
    reference_trajectory,
)
from benchmarks.contenders.base import (
    Contender,
    HostArray,
    OperationTask,
    TrainingSession,
    TrainingTask,
)
from benchmarks.costs import Cost, forward_cost, operation_cost, training_cost
from benchmarks.memory import Peak, peak_memory
from benchmarks.operation_inputs import expected_results, operation_task
from mnist_accel.data import load_mnist
from mnist_accel.data.batches import split_indices
from mnist_accel.nn import Network
from mnist_accel.nn.optimizers import UpdateRule, create_optimizer
from mnist_accel.recipes.models import RECIPES

Case = TrainingCase | InferenceCase | OperationCase
LEVEL_OF: dict[type, str] = {
    TrainingCase: "training",
    InferenceCase: "inference",
    OperationCase: "operations",
}
# An epoch of slow contenders is cut to what takes about so long, or half or double of it: some
# compile every other length anew. After so many trials it stays as it is.
RUN_S = 0.15
MOST_TRIALS = 3
FEWEST_ROUNDS, MOST_ROUNDS = 2, 100
# Calls that do not count come first: so many, or for so long. Threads that wake up may share a
# core, where each waits for its turn, until the system spreads them after 0.1 s: meanwhile what
# takes 0.1 ms takes 8 (seen of PyTorch on two cores, in one pass of eight).
WARM_UP_CALLS, WARM_UP_S = 15, 0.12
# What is over sooner is repeated so long in a round: the clock itself takes a good part of 10 µs.
SHORTEST_ROUND_S = 5e-4
HELD_OUT = 0.1  # part of the training set that trainings to an accuracy are watched on


class NotComparableError(Exception):
    """A contender cannot do this case; the message says why."""


@dataclass(frozen=True)
class Prepared:
    """Something that passed its check and can be timed.

    Attributes:
        run: one call; returns when the results are there.
        images: images a call.
        steps: updates a call; 0 where nothing is trained.
        cost: least work of a call.
        phases_s: seconds of "setup", "transfer", "compile" and "first_call".
        check: how close it came to the reference.
        facts: network, batch, width, depth and sweeps, for reports.
        peak: memory of a fresh process that trains this; None where it was not measured.
        reset: puts it back where it began, before a pass.
    """

    run: Callable[[], object]
    images: int
    steps: int
    cost: Cost
    phases_s: Mapping[str, float]
    check: Check
    facts: Mapping[str, Any]
    peak: Peak | None = None
    reset: Callable[[], object] = lambda: None


@dataclass
class Laboratory:
    """Prepares each pair of case and contender once.

    What went wrong the first time goes wrong in later passes in the same words.

    Attributes:
        steps_before: updates in an epoch, by the names of case and contender, where the first part
            of an interrupted run has settled them: all passes of a pair are alike.
        weighs: whether the memory of each recipe's training is measured, which takes seconds.
        clock: returns seconds.
    """

    steps_before: Mapping[tuple[str, str], int] = field(default_factory=dict)
    weighs: bool = False
    clock: Callable[[], float] = time.perf_counter
    _prepared: dict[tuple[Case, str], Prepared | Exception] = field(default_factory=dict)

    def prepare(self, case: Case, contender: Contender) -> Prepared:
        """Return the case, ready to be timed.

        Raises:
            NotComparableError: the contender cannot do it here.
            CheckError: it does not compute what it should.
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

    def check(self, session: TrainingSession, task: TrainingTask, contender: Contender) -> Check:
        """Compare a training of any length with the reference, as those that are prepared are.

        Raises:
            CheckError: it does not compute what it should.
        """
        # The reference trains on no more than it needs.
        rows = slice(0, STEPS * task.batch_size)
        beginning = replace(task, images=task.images[rows], labels=task.labels[rows])
        return check_training(session, task, reference_trajectory(beginning, contender.ties))

    def rounds(self, prepared: Prepared, budget_s: float) -> tuple[int, int]:
        """Warm up, and return how many rounds fit the time, and the calls of each."""
        seconds = self._warm_up(prepared.run)
        calls = max(1, round(SHORTEST_ROUND_S / seconds))
        fitting = round(budget_s / (calls * seconds))
        return max(FEWEST_ROUNDS, min(MOST_ROUNDS, fitting)), calls

    def _warm_up(self, run: Callable[[], object]) -> float:
        """Call until it goes as it will go on; return the seconds of the quickest call."""
        quickest = float("inf")
        end = self.clock() + WARM_UP_S
        for _ in range(WARM_UP_CALLS):
            quickest = min(quickest, self._seconds(run))
            if self.clock() >= end:
                break
        return max(quickest, 1e-9)

    def _prepare(self, case: Case, contender: Contender) -> Prepared:
        require_available(contender)
        if isinstance(case, TrainingCase):
            return self._training(case, contender)
        if isinstance(case, InferenceCase):
            return self._inference(case, contender)
        return self._operation(case, contender)

    def _training(self, case: TrainingCase, contender: Contender) -> Prepared:
        task = training_task(case, case.steps)
        refusal = contender.refusal(task)
        if refusal:
            raise NotComparableError(refusal)
        expected = _reference(case, contender.ties)
        checked = contender.training(task)
        check = check_training(checked, task, expected)
        settled = self.steps_before.get((case.name, contender.name))
        batches = first_batches(task)
        updates_s = self._warm_up(lambda: checked.updates(batches))
        steps = settled or self._fitting_steps(case, STEPS, updates_s)
        for trial in range(MOST_TRIALS):
            task = training_task(case, steps)
            started = self.clock()
            session = contender.training(task)
            session.compile()
            setup_s = self.clock() - started - session.transfer_s - session.compile_s
            first_call_s = self._seconds(session.run)
            if settled or trial == MOST_TRIALS - 1:
                break
            # An update may take longer or shorter in an epoch, so an epoch has the say.
            better = self._fitting_steps(case, steps, self._seconds(session.run))
            if steps / 2 <= better <= steps * 2:
                break
            steps = better
        images = steps * case.batch
        return Prepared(
            run=session.run,
            images=images,
            steps=steps,
            cost=training_cost(task.model) * images,
            phases_s={
                "setup": setup_s,
                "transfer": session.transfer_s,
                # The session that was checked may have left compiled code to this one.
                "compile": max(checked.compile_s, session.compile_s),
                "first_call": first_call_s,
            },
            check=check,
            facts={**_network_facts(case.network, task.model, case.batch), "sweep": case.sweeps},
            peak=peak_memory(case.network, case.batch, contender.name)
            if self.weighs and "recipe" in case.sweeps
            else None,
            reset=session.reset,
        )

    def _fitting_steps(self, case: TrainingCase, steps: int, seconds: float) -> int:
        """Return the updates that an epoch has time for, where so many steps took so long."""
        return max(1, min(case.steps, int(steps * RUN_S / seconds)))

    def _inference(self, case: InferenceCase, contender: Contender) -> Prepared:
        model = case.model()
        refusal = contender.inference_refusal(model, case.batch)
        if refusal:
            raise NotComparableError(refusal)
        images = _scaled_images(case.batch)
        started = self.clock()
        predict = contender.inference(model)
        setup_s = self.clock() - started
        first_call_s = self._seconds(lambda: predict(images))
        return Prepared(
            run=lambda: predict(images),
            images=case.batch,
            steps=0,
            cost=forward_cost(model) * case.batch,
            phases_s={
                "setup": setup_s,
                "transfer": 0.0,
                "compile": 0.0,
                "first_call": first_call_s,
            },
            check=check_inference(predict(images), _probabilities(case), model),
            facts={**_network_facts(case.network, model, case.batch), "sweep": ()},
        )

    def _operation(self, case: OperationCase, contender: Contender) -> Prepared:
        task, expected = _operation(case)
        started = self.clock()
        session = contender.operation(task)
        setup_s = self.clock() - started
        if session is None:
            raise NotComparableError(f"{contender.name} has no operation of this kind")
        check = check_operation(session.results(), expected, task)
        first_call_s = self._seconds(session.run)
        return Prepared(
            run=session.run,
            images=case.batch,
            steps=0,
            cost=operation_cost(task, expected),
            phases_s={
                "setup": setup_s,
                "transfer": 0.0,
                "compile": 0.0,
                "first_call": first_call_s,
            },
            check=check,
            facts={
                "network": case.operation,
                "batch": case.batch,
                "width": None,
                "depth": 1,
                "sweep": (),
            },
        )

    def _seconds(self, work: Callable[[], object]) -> float:
        started = self.clock()
        work()
        return self.clock() - started


def require_available(contender: Contender) -> None:
    """Refuse a contender that cannot run here.

    Raises:
        NotComparableError: with the reason and the remedy.
    """
    availability = contender.availability()
    if not availability.ok:
        raise NotComparableError(
            "; ".join(filter(None, (availability.reason, availability.remedy)))
        )


def training_task(case: TrainingCase, steps: int) -> TrainingTask:
    """Return the network of a case and the first images of the training set, for so many steps."""
    images, labels = _images()
    rows = slice(0, steps * case.batch)
    return TrainingTask(
        model=case.model(),
        optimizer=recipe_optimizer(case.network),
        batch_size=case.batch,
        images=images[rows],
        labels=labels[rows],
        seed=0,
    )


def accuracy_task(
    case: AccuracyCase, seed: int
) -> tuple[TrainingTask, NDArray[np.uint8], NDArray[np.int64]]:
    """Return the training of a case, and the images and labels that it is watched on."""
    images, labels = _images()
    kept, held_out = split_indices(len(images), fraction=HELD_OUT, seed=0)
    task = TrainingTask(
        model=case.model(seed),
        optimizer=recipe_optimizer(case.network, case.lr),
        batch_size=case.batch,
        images=images[kept],
        labels=labels[kept],
        seed=seed,
    )
    return task, images[held_out], labels[held_out]


def recipe_optimizer(network: str, lr: float | None = None) -> UpdateRule:
    """Return the optimizer of a recipe, at its highest learning rate if at no other."""
    recipe = RECIPES[network]
    return create_optimizer(
        recipe.optimizer, lr=lr or recipe.lr, weight_decay=recipe.weight_decay or None
    )


def _network_facts(network: str, model: Network, batch: int) -> dict[str, Any]:
    return {"network": network, "batch": batch, "width": width(model), "depth": depth(model)}


@cache
def _images() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the training set as it lies in its files."""
    images, labels = load_mnist(normalize=False)[0]
    return images, labels.astype(np.int64)


def _scaled_images(count: int) -> NDArray[np.float32]:
    """Return the first images, 0…1."""
    return (_images()[0][:count] / np.float32(255)).astype(np.float32)


# What contenders are compared with is computed once for all of them.


@cache
def _operation(case: OperationCase) -> tuple[OperationTask, list[HostArray]]:
    task = operation_task(case)
    return task, expected_results(task)


@cache
def _probabilities(case: InferenceCase) -> HostArray:
    return reference_probabilities(case.model(), _scaled_images(case.batch))


@cache
def _reference(case: TrainingCase, ties: Any) -> Trajectory:
    return reference_trajectory(training_task(case, case.steps), ties)
