"""The networks of a population one after the other, on `numba`."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from backends import Availability, get_backend
from benchmarks.contenders.base import (
    Contender,
    HostArrays,
    InferenceSession,
    PopulationSession,
    TrainingSession,
    TrainingTask,
)
from benchmarks.contenders.project import ProjectBackend, network_on
from benchmarks.contenders.project_population import QueueTraining
from mnist_accel.nn import Network
from mnist_accel.training.trainer import Trainer


class InTurnTraining(PopulationSession):
    """One trainer after the other, each on all cores."""

    def __init__(self, members: Sequence[TrainingTask], *, backend: str) -> None:
        self._members = members
        self._backend = get_backend(backend)
        self._images, self._labels = members[0].images, members[0].labels
        self._data = self._trainer(members[0]).prepare(self._images, self._labels)
        self._trained: list[Network] = []

    def run(self) -> None:
        """Train all networks for one epoch."""
        self._trained = []
        for member in self._members:
            trainer = self._trainer(member)
            trainer.fit(trainer.share(self._data), epochs=1)
            self._trained.append(trainer.model)

    def updates(self, batches: NDArray[np.int64]) -> NDArray[Any]:
        """Train one epoch on the images of these batches, which are the order of the project."""
        count = batches[0].size
        trainers = [self._trainer(member) for member in self._members]
        self._trained = [trainer.model for trainer in trainers]
        return np.array(
            [
                trainer.fit(self._images[:count], self._labels[:count], epochs=1).losses
                for trainer in trainers
            ]
        )

    def weights(self, member: int) -> HostArrays:
        """Return the weights of a network."""
        return self._trained[member].state_dict()

    def _trainer(self, task: TrainingTask) -> Trainer:
        return Trainer(
            network_on(self._backend, task.model),
            task.optimizer,
            batch_size=task.batch_size,
            seed=task.seed,
        )


class InTurn(Contender):
    """The networks of a population one after the other on `numba`, shown for scale.

    Args:
        name: name in reports.
        threads: 1 to train each network on one thread; None for all cores.
    """

    is_baseline: ClassVar[bool] = True
    ties: ClassVar[Literal["first", "recipe"]] = "recipe"

    def __init__(self, name: str, *, threads: int | None) -> None:
        self.name = name  # type: ignore[misc]  # one class serves both
        self._threads = threads
        self._numba = ProjectBackend("numba")

    def availability(self) -> Availability:
        """Return the availability of the backend."""
        return self._numba.availability()

    def versions(self) -> dict[str, str]:
        """Return the versions of the backend's libraries."""
        return self._numba.versions()

    def population(self, members: Sequence[TrainingTask]) -> PopulationSession:
        """Prepare the trainings."""
        if self._threads is None:
            return InTurnTraining(members, backend="numba")
        return QueueTraining(members, backend="numba", threads=self._threads)

    def training(self, task: TrainingTask) -> TrainingSession:
        """Only populations are trained."""
        raise NotImplementedError

    def inference(self, model: Network) -> InferenceSession:
        """Only populations are trained."""
        raise NotImplementedError
