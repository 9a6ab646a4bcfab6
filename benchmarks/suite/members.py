"""The trainings of a population, and the comparison of some of them with the reference."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.base import PopulationSession, TrainingTask
from benchmarks.storage.schema import Check
from benchmarks.suite.cases import PopulationCase
from benchmarks.suite.checks import STEPS, Trajectory, compare, reference_trajectory
from benchmarks.suite.networks import create_network, optimizer_of
from benchmarks.suite.tasks import training_set
from mnist_accel.data.batches import BatchSampler
from mnist_accel.diagnostics.compare import longest_sum


def population_tasks(case: PopulationCase, steps: int) -> list[TrainingTask]:
    """Return the trainings of a case on the first `steps` batches, the seed changing fastest."""
    images, labels = training_set()
    rows = slice(0, steps * case.batch)
    optimizer = optimizer_of(case.network)
    rates = (optimizer.lr, optimizer.lr / 2)[: case.members]
    return [
        TrainingTask(
            model=create_network(case.network, seed=seed),
            optimizer=replace(optimizer, lr=rate),
            batch_size=case.batch,
            images=images[rows],
            labels=labels[rows],
            seed=seed,
        )
        for rate in rates
        for seed in range(case.members // len(rates))
    ]


def first_batches(members: Sequence[TrainingTask], steps: int) -> NDArray[np.int64]:
    """Return the rows of the first images, in the image orders of the project.

    The shape is (members, steps, batch).
    """
    size = members[0].batch_size
    samplers = [BatchSampler(steps * size, size, "shuffle", member.seed) for member in members]
    rows = [sampler.order(0).rows(0, steps * size) for sampler in samplers]
    return np.array(rows, np.int64).reshape(len(members), steps, size)


def expected_members(
    case: PopulationCase, ties: Literal["first", "recipe"]
) -> Mapping[str, NDArray[Any]]:
    """Return losses and weights of the first and the last member after some updates in float64.

    These two have different seeds and learning rates.
    """
    members = population_tasks(case, STEPS)
    batches = first_batches(members, STEPS)
    arrays: dict[str, NDArray[Any]] = {}
    for number in _checked(members):
        task, order = members[number], batches[number].ravel()
        task = replace(task, images=task.images[order], labels=task.labels[order])
        computed = reference_trajectory(task, ties)
        arrays[f"{number} losses"] = np.array(computed.losses)
        arrays |= {f"{number} weight {name}": one for name, one in computed.weights.items()}
    return arrays


def check_members(
    session: PopulationSession, members: Sequence[TrainingTask], batches: Any, path: str
) -> Check:
    """Compare the first and the last member of a session with the reference in a file.

    Raises:
        CheckError: the results differ by more than rounding.
    """
    losses = session.updates(batches)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    terms = longest_sum(members[0].model, members[0].batch_size)
    checks = []
    for number in _checked(members):
        prefix = f"{number} weight "
        expected = {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
        checks.append(
            compare(
                Trajectory({}, tuple(map(float, losses[number])), session.weights(number)),
                Trajectory({}, tuple(map(float, arrays[f"{number} losses"])), expected),
                dtype="float32",
                terms=terms,
            )
        )
    return max(checks, key=lambda check: check.difference / check.tolerance)


def _checked(members: Sequence[TrainingTask]) -> list[int]:
    return sorted({0, len(members) - 1})
