"""Compares what a contender computes with a reference, before any time is measured.

The loops of `reference` compute in float64, but are too slow for large batches. The comparison
therefore has two stages: on a small batch, the project's NumPy network in float64 must agree with
the loops; at the case's own batch size, each contender must agree with that network. Both stages
compare the losses and weights of some updates, the second also the gradients of the first batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

import reference
from benchmarks.contenders.base import (
    HostArray,
    HostArrays,
    OperationTask,
    TrainingSession,
    TrainingTask,
)
from benchmarks.contenders.project import ProjectBackend, network_on
from benchmarks.storage.schema import Check
from benchmarks.suite import operation_tasks
from benchmarks.suite.networks import create_network, optimizer_of, reference_of
from benchmarks.suite.tasks import training_set
from mnist_accel.diagnostics.compare import longest_sum
from mnist_accel.nn import MaxPool2d, Network
from mnist_accel.util.tolerance import relative_difference, relative_tolerance

STEPS = 10
# Larger batches make fewer updates, because the reference would take seconds.
LARGE_BATCH, STEPS_OF_LARGE_BATCHES = 1000, 3
REFERENCE_BATCH = 4
# Libraries round more often than the bound counts, because they fuse and reorder more than sums,
# and Adam amplifies the difference. The largest measured difference is 2.4 times the bound, in
# NumPy and in other libraries: biases of lenet at a batch of 512.
ALLOWANCE = 5.0


class CheckError(Exception):
    """A contender computes a wrong result."""


@dataclass(frozen=True)
class Trajectory:
    """Gradients of the first batch, and losses and weights of the updates."""

    gradients: HostArrays
    losses: tuple[float, ...]
    weights: HostArrays


def trajectory(session: TrainingSession, task: TrainingTask) -> Trajectory:
    """Make the updates from the weights of the task, reset the session, and return the values."""
    batches = first_batches(task)
    session.reset()
    gradients = session.gradients(batches[0])
    losses = tuple(session.updates(batches))
    weights = session.weights()
    session.reset()
    return Trajectory(gradients, losses, weights)


def first_batches(task: TrainingTask) -> NDArray[np.int64]:
    """Return the rows of ten batches (10, batch), or of three large ones.

    They start over after the last image.
    """
    steps = STEPS if task.batch_size < LARGE_BATCH else STEPS_OF_LARGE_BATCHES
    order = np.arange(steps * task.batch_size) % len(task.images)
    return order.reshape(steps, task.batch_size)


def reference_trajectory(task: TrainingTask, ties: Literal["first", "recipe"]) -> Trajectory:
    """Return the trajectory in float64, with the contender's rule for equal maxima in pooling."""
    check_reference_network(task.model.name)
    exact = replace(task, model=in_float64(task.model, ties))
    return trajectory(ProjectBackend("numpy").training(exact), exact)


def in_float64(model: Network, ties: Literal["first", "recipe"]) -> Network:
    """Return the network with the same weights in float64."""
    layers = [
        replace(layer, ties="first") if isinstance(layer, MaxPool2d) and ties == "first" else layer
        for layer in model.layers
    ]
    return network_on(model.backend, model, layers=layers, dtype="float64")


@cache
def check_reference_network(name: str) -> None:
    """Compare ten updates of a recipe in float64 on NumPy with the loops, once per process.

    Raises:
        CheckError: the results differ by more than rounding.
    """
    rule = optimizer_of(name)
    images, labels = training_set()
    rows = slice(0, STEPS * REFERENCE_BATCH)
    task = TrainingTask(
        model=create_network(name, dtype="float64"),
        optimizer=rule,
        batch_size=REFERENCE_BATCH,
        images=images[rows],
        labels=labels[rows],
        seed=0,
    )
    got = trajectory(ProjectBackend("numpy").training(task), task)
    weights, losses = reference.train(
        reference_of(name),
        task.model.state_dict(),
        task.images,
        task.labels,
        optimizer=rule.kind,
        lr=rule.lr,
        steps=STEPS,
        batch_size=REFERENCE_BATCH,
        weight_decay=rule.weight_decay,
    )
    # Wrong gradients would lead to wrong weights, so gradients need no comparison of their own.
    expected = Trajectory(got.gradients, tuple(losses), weights)
    terms = longest_sum(task.model, REFERENCE_BATCH)
    compare(got, expected, dtype="float64", terms=terms)


def check_training(session: TrainingSession, task: TrainingTask, expected: Trajectory) -> Check:
    """Compare a session's trajectory with the reference.

    Raises:
        CheckError: the results differ by more than rounding.
    """
    terms = longest_sum(task.model, task.batch_size)
    return compare(trajectory(session, task), expected, dtype="float32", terms=terms)


def check_first_update(loss: float, expected: Trajectory, task: TrainingTask) -> Check:
    """Compare the loss of the first update with that of the reference.

    Raises:
        CheckError: it differs by more than rounding.
    """
    terms = longest_sum(task.model, task.batch_size)
    bound = ALLOWANCE * relative_tolerance("float32", terms=terms)
    return _check("loss of update 1", loss, expected.losses[0], bound)


def check_long_training(
    session: TrainingSession, task: TrainingTask, ties: Literal["first", "recipe"]
) -> Check:
    """Compare the first updates of a training on many images with the reference.

    Raises:
        CheckError: the results differ by more than rounding.
    """
    # The reference trains only on the images of these updates.
    rows = slice(0, STEPS * task.batch_size)
    start = replace(task, images=task.images[rows], labels=task.labels[rows])
    return check_training(session, task, reference_trajectory(start, ties))


def reference_probabilities(model: Network, images: NDArray[np.float32]) -> HostArray:
    """Return the probabilities of the float64 network, which agrees with the loops."""
    check_reference_network(model.name)
    return in_float64(model, "recipe").predict_proba(images)


def check_inference(probabilities: HostArray, expected: HostArray, model: Network) -> Check:
    """Compare the probabilities of a network with those of the reference.

    Raises:
        CheckError: the results differ by more than rounding.
    """
    bound = relative_tolerance("float32", terms=longest_sum(model, 1))
    return _check("probabilities", probabilities, expected, bound, against="float64")


def check_operation(
    results: Sequence[HostArray], expected: Sequence[HostArray], task: OperationTask
) -> Check:
    """Compare the results of an operation with those of the loops.

    Raises:
        CheckError: the results differ by more than rounding, or in number.
    """
    if len(results) != len(expected):
        raise CheckError(f"{len(results)} results instead of {len(expected)}")
    bound = relative_tolerance("float32", terms=operation_tasks.longest_sum(task))
    checks = [
        _check(f"result {number}", got, want, bound, against="float64 loops")
        for number, (got, want) in enumerate(zip(results, expected, strict=True), start=1)
    ]
    return max(checks, key=lambda check: check.difference)


def compare(got: Trajectory, expected: Trajectory, *, dtype: str, terms: int) -> Check:
    """Compare two trajectories, tensor by tensor.

    Raises:
        CheckError: a tensor is missing, or differs by more than rounding.
    """
    once = ALLOWANCE * relative_tolerance(dtype, terms=terms)
    checks = [
        *_compare_arrays("gradient of", got.gradients, expected.gradients, once),
        *_compare_arrays("weights", got.weights, expected.weights, len(got.losses) * once),
    ]
    for step, (loss, want) in enumerate(zip(got.losses, expected.losses, strict=True), start=1):
        checks.append(_check(f"loss of update {step}", loss, want, step * once))
    return max(checks, key=lambda check: check.difference / check.tolerance)


def _compare_arrays(what: str, got: HostArrays, expected: HostArrays, bound: float) -> list[Check]:
    if got.keys() != expected.keys():
        raise CheckError(f"{what} {sorted(got)} instead of {sorted(expected)}")
    return [_check(f"{what} {key}", got[key], expected[key], bound) for key in expected]


def _check(
    what: str,
    got: HostArray | float,
    expected: HostArray | float,
    bound: float,
    *,
    against: str = "float64, updates",
) -> Check:
    if np.shape(got) != np.shape(expected):
        raise CheckError(f"{what} has shape {np.shape(got)} instead of {np.shape(expected)}")
    difference = relative_difference(np.asarray(got), np.asarray(expected))
    if not difference <= bound:  # also true for NaN
        raise CheckError(
            f"{what} differs from the float64 reference by {difference:.2g}, more than {bound:.2g}"
        )
    return Check(difference, bound, against)
