"""This project's populations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.base import HostArrays, PopulationSession, TrainingTask
from mnist_accel.populations.grid import Grid, make_grid
from mnist_accel.populations.member import MemberResult
from mnist_accel.populations.running import LocalMembers, worker_count
from mnist_accel.populations.training import own_dataset

_TEST_IMAGES = 100  # a population evaluates each network, which other contenders do not


class QueueTraining(PopulationSession):
    """What `train_population` does, on prepared data.

    Args:
        members: the trainings; every seed has every learning rate, and seeds change fastest.
        backend: name of the backend.
        threads: number of networks that train at the same time; None for the number of cores.
    """

    def __init__(
        self, members: Sequence[TrainingTask], *, backend: str, threads: int | None = None
    ) -> None:
        self._task = members[0]
        self._backend = backend
        self._threads = threads
        self._grid = _grid(members)
        self._members = self._prepared(len(self._task.images))
        self._results: list[MemberResult] = []

    def run(self) -> None:
        """Train all networks for one epoch."""
        self._results = _train(self._members, self._grid)

    def updates(self, batches: NDArray[np.int64]) -> NDArray[Any]:
        """Train one epoch on the images of these batches, which are the order of the project."""
        self._results = _train(self._prepared(batches[0].size), self._grid)
        return np.array([[loss for _, loss in result.curve] for result in self._results])

    def weights(self, member: int) -> HostArrays:
        """Return the weights of a network."""
        weights = self._results[member].weights
        assert weights is not None, "the training did not fail"
        return weights

    def _prepared(self, count: int) -> LocalMembers:
        """Return the members, which train on the first `count` images."""
        task = self._task
        train, test = (
            (task.images[:number], task.labels[:number]) for number in (count, _TEST_IMAGES)
        )
        workers = worker_count(self._backend, self._threads)
        dataset = own_dataset((train, test))
        members = LocalMembers(self._grid, dataset, backend=self._backend, workers=workers)
        members.prepare()
        return members


def _grid(members: Sequence[TrainingTask]) -> Grid:
    """Return the settings of the members, as a user of `train_population` gives them."""
    task = members[0]
    given = {
        "lr": list(dict.fromkeys(member.optimizer.lr for member in members)),
        "batch_size": task.batch_size,
        "epochs": 1,
        "limit_train": 0,
        "limit_test": 0,
        "sampling": "shuffle",
        "schedule": "constant",
        "validation_split": 0.0,
    }
    seeds = dict.fromkeys(member.seed for member in members)
    return make_grid(task.model.name, seeds=seeds, given=given, fixed={})


def _train(members: LocalMembers, grid: Grid) -> list[MemberResult]:
    """Return the results of all members, in their order."""
    return sorted(members.train(range(len(grid.members))), key=lambda result: result.member)
