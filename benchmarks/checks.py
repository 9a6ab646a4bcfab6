"""Is it the right computation? Asked before any time is taken.

The judge are the float64 loops of `reference.py`. They are too slow for large batches, so the
chain has two links: on a small batch, the project's NumPy network in float64 must agree with the
loops; at the case's own batch, every contender must agree with that network. Compared are the
gradients of the first batch, and losses and weights of ten updates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

import reference
from benchmarks import operation_inputs
from benchmarks.contenders.base import (
    HostArray,
    HostArrays,
    OperationTask,
    TrainingSession,
    TrainingTask,
)
from benchmarks.contenders.project import ProjectBackend
from mnist_accel.data import load_mnist
from mnist_accel.diagnostics.compare import longest_sum
from mnist_accel.nn import MaxPool2d, Network
from mnist_accel.nn.optimizers import create_optimizer
from mnist_accel.recipes.models import RECIPES, create_model
from mnist_accel.util.tolerance import relative_difference, relative_tolerance

STEPS = 10
JUDGED_BATCH = 4
# Libraries that join and reorder more than sums round more often than the bound counts, and Adam
# magnifies it. The most that was measured is 2.4 times the bound, in NumPy as in its peers: biases
# of lenet at a batch of 512.
ALLOWANCE = 5.0
AGAINST = f"float64, {STEPS} updates"


class CheckError(Exception):
    """A contender does not compute what it should."""


@dataclass(frozen=True)
class Check:
    """How close a computation came to the reference.

    Attributes:
        difference: the largest relative difference, of the tensor that came closest to its bound.
        tolerance: this bound.
        against: what it was compared with.
    """

    difference: float
    tolerance: float
    against: str = AGAINST


@dataclass(frozen=True)
class Trajectory:
    """Gradients of a first batch, and what ten updates lead to."""

    gradients: HostArrays
    losses: tuple[float, ...]
    weights: HostArrays


def trajectory(session: TrainingSession, task: TrainingTask) -> Trajectory:
    """Let a session make ten updates from the weights of the task, and put it back there."""
    batches = first_batches(task)
    session.reset()
    gradients = session.gradients(batches[0])
    losses = tuple(session.updates(batches))
    weights = session.weights()
    session.reset()
    return Trajectory(gradients, losses, weights)


def first_batches(task: TrainingTask) -> NDArray[np.int64]:
    """Return ten batches that go round the images of a task."""
    order = np.arange(STEPS * task.batch_size) % len(task.images)
    return order.reshape(STEPS, task.batch_size)


def reference_trajectory(task: TrainingTask, ties: Literal["first", "recipe"]) -> Trajectory:
    """Return what the task leads to in float64, with the contender's rule for equal maxima."""
    judge_network(task.model.name)
    model = in_float64(task.model, ties)
    exact = replace(task, model=model)
    return trajectory(ProjectBackend("numpy").training(exact), exact)


def in_float64(model: Network, ties: Literal["first", "recipe"]) -> Network:
    """Return the network with the same weights in float64."""
    layers = [
        replace(layer, ties="first") if isinstance(layer, MaxPool2d) and ties == "first" else layer
        for layer in model.layers
    ]
    exact = Network(
        layers,
        model.loss,
        input_shape=model.input_shape,
        backend=model.backend,
        dtype="float64",
        pixel_shift=model.pixel_shift,
        name=model.name,
    )
    exact.load_state_dict(model.state_dict())
    return exact


@cache
def judge_network(name: str) -> None:
    """Compare ten updates of a recipe in float64 on NumPy with the loops; once a run.

    Raises:
        CheckError: they differ by more than rounding.
    """
    recipe = RECIPES[name]
    images, labels = load_mnist(normalize=False)[0]
    rows = slice(0, STEPS * JUDGED_BATCH)
    task = TrainingTask(
        model=create_model(name, backend="numpy", dtype="float64"),
        optimizer=create_optimizer(
            recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay or None
        ),
        batch_size=JUDGED_BATCH,
        images=images[rows],
        labels=labels[rows].astype(np.int64),
        seed=0,
    )
    got = trajectory(ProjectBackend("numpy").training(task), task)
    weights, losses = reference.train(
        name,
        task.model.state_dict(),
        task.images,
        task.labels,
        optimizer=recipe.optimizer,
        lr=recipe.lr,
        steps=STEPS,
        batch_size=JUDGED_BATCH,
        weight_decay=recipe.weight_decay,
    )
    judged = Trajectory(got.gradients, tuple(losses), weights)
    terms = longest_sum(task.model, JUDGED_BATCH)
    compare(got, judged, dtype="float64", terms=terms)


def check_training(session: TrainingSession, task: TrainingTask, expected: Trajectory) -> Check:
    """Compare a session's trajectory with the reference.

    Raises:
        CheckError: they differ by more than rounding.
    """
    terms = longest_sum(task.model, task.batch_size)
    return compare(trajectory(session, task), expected, dtype="float32", terms=terms)


def reference_probabilities(model: Network, images: NDArray[np.float32]) -> HostArray:
    """Return the probabilities of the float64 network, which agrees with the loops."""
    judge_network(model.name)
    return in_float64(model, "recipe").predict_proba(images)


def check_inference(probabilities: HostArray, expected: HostArray, model: Network) -> Check:
    """Compare the probabilities of a network with those of the reference.

    Raises:
        CheckError: they differ by more than rounding.
    """
    bound = relative_tolerance("float32", terms=longest_sum(model, 1))
    return replace(_check("probabilities", probabilities, expected, bound), against="float64")


def check_operation(
    results: Sequence[HostArray], expected: Sequence[HostArray], task: OperationTask
) -> Check:
    """Compare the results of an operation with those of the loops.

    Raises:
        CheckError: they differ by more than rounding, or are not as many.
    """
    if len(results) != len(expected):
        raise CheckError(f"{len(results)} results instead of {len(expected)}")
    bound = relative_tolerance("float32", terms=operation_inputs.longest_sum(task))
    checks = [
        _check(f"result {number}", got, want, bound)
        for number, (got, want) in enumerate(zip(results, expected, strict=True), start=1)
    ]
    worst = max(checks, key=lambda check: check.difference)
    return replace(worst, against="float64 loops")


def compare(got: Trajectory, expected: Trajectory, *, dtype: str, terms: int) -> Check:
    """Compare two trajectories, tensor by tensor.

    Raises:
        CheckError: one differs by more than rounding explains, or is missing.
    """
    once = ALLOWANCE * relative_tolerance(dtype, terms=terms)
    checks = [
        *_compare_arrays("gradient of", got.gradients, expected.gradients, once),
        *_compare_arrays("weights", got.weights, expected.weights, STEPS * once),
    ]
    for step, (loss, want) in enumerate(zip(got.losses, expected.losses, strict=True), start=1):
        checks.append(_check(f"loss of update {step}", loss, want, step * once))
    return max(checks, key=lambda check: check.difference / check.tolerance)


def _compare_arrays(what: str, got: HostArrays, expected: HostArrays, bound: float) -> list[Check]:
    if got.keys() != expected.keys():
        raise CheckError(f"{what} {sorted(got)} instead of {sorted(expected)}")
    return [_check(f"{what} {key}", got[key], expected[key], bound) for key in expected]


def _check(what: str, got: HostArray | float, expected: HostArray | float, bound: float) -> Check:
    if np.shape(got) != np.shape(expected):
        raise CheckError(f"{what} has the shape {np.shape(got)} instead of {np.shape(expected)}")
    difference = relative_difference(np.asarray(got), np.asarray(expected))
    if not difference <= bound:  # so that a NaN is refused
        raise CheckError(
            f"{what} is {difference:.2g} off the float64 reference, more than {bound:.2g}"
        )
    return Check(difference, bound)
