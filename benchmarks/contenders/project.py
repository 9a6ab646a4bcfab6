"""The backends of this project, through `Trainer` and `Network` as in a user's program."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from backends import Availability, Backend, backend_availability, get_backend
from benchmarks.contenders.base import (
    Contender,
    HostArray,
    HostArrays,
    InferenceSession,
    OperationSession,
    OperationTask,
    PopulationSession,
    TrainingSession,
    TrainingTask,
)
from benchmarks.contenders.project_operations import prepare
from benchmarks.contenders.project_population import QueueTraining
from mnist_accel.data.batches import BatchSampler
from mnist_accel.nn import Layer, Network
from mnist_accel.training.trainer import Trainer

# The operations of each task that consists of several operations.
_COMBINED_OPERATIONS = {"conv2d_relu_max_pool2d": ("conv2d", "relu", "max_pool2d")}


class ProjectBackend(Contender):
    """A backend of this project.

    Args:
        name: name of the backend.
    """

    is_baseline: ClassVar[bool] = False
    ties: ClassVar[Literal["first", "recipe"]] = "recipe"

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc]  # one class serves all backends

    def availability(self) -> Availability:
        """Return the availability of the backend."""
        return backend_availability(self.name)

    def versions(self) -> dict[str, str]:
        """Return the versions of the backend's libraries."""
        return get_backend(self.name).device_info().libraries

    def device(self) -> Literal["cpu", "gpu"]:
        """Return "gpu" for the backend `cupy`, "cpu" for the others."""
        return "gpu" if self.name == "cupy" else "cpu"

    def peak_device_bytes(self) -> int | None:
        """Return the size of CuPy's memory pool, which keeps freed memory, so this is the peak."""
        if self.device() == "cpu":
            return None
        import cupy  # may be missing

        return int(cupy.get_default_memory_pool().total_bytes())

    def training(self, task: TrainingTask) -> TrainingSession:
        """Prepare a `Trainer`."""
        return _Training(get_backend(self.name), task)

    def population(self, members: Sequence[TrainingTask]) -> PopulationSession:
        """Prepare a queue of trainings."""
        return QueueTraining(members, backend=self.name)

    def estimator(self, task: Literal["classifier", "regressor"], **settings: Any) -> Any:
        """Return an estimator on this backend."""
        from mnist_accel.sklearn import NetworkClassifier, NetworkRegressor  # imports scikit-learn

        kinds = {"classifier": NetworkClassifier, "regressor": NetworkRegressor}
        return kinds[task](backend=self.name, **settings)

    def inference(self, model: Network) -> InferenceSession:
        """Return the method `predict_proba` of a copy of the network on this backend."""
        return network_on(get_backend(self.name), model).predict_proba

    def operation(self, task: OperationTask) -> OperationSession | None:
        """Prepare the backend's operations for the task."""
        backend = get_backend(self.name)
        compute = prepare(backend, task)
        kinds = frozenset(_COMBINED_OPERATIONS.get(task.name, (task.name,)))

        def run() -> None:
            with backend.computation(kinds):
                compute()
                backend.synchronize()

        return OperationSession(run, lambda: [backend.to_numpy(array) for array in compute()])


def network_on(
    backend: Backend,
    model: Network,
    *,
    layers: Sequence[Layer] | None = None,
    dtype: str | None = None,
) -> Network:
    """Return a copy of the network on `backend`; `layers` and `dtype` replace its own if given."""
    copy = Network(
        model.layers if layers is None else layers,
        model.loss,
        input=model.input,
        backend=backend,
        dtype=dtype or model.dtype,
        name=model.name,
    )
    copy.load_state_dict(model.state_dict())
    return copy


@contextmanager
def _compile_times(backend: Backend) -> Iterator[list[float]]:
    """Yield a list to which each compilation by Numba appends its seconds.

    Code that Numba loads from its cache on disk adds nothing.
    """
    times: list[float] = []
    if backend.name != "numba":
        yield times
        return
    from numba.core import event  # takes a second to import

    with event.install_timer("numba:compile", times.append):
        yield times


class _Training(TrainingSession):
    """A session with a `Trainer`; `reset` creates a new one."""

    def __init__(self, backend: Backend, task: TrainingTask) -> None:
        self._backend = backend
        self._task = task
        with _compile_times(backend) as times:
            self.reset()
        self.compile_s = sum(times)

    def run(self) -> None:
        self._trainer.fit(self._data, epochs=1)

    def run_from_arrays(self) -> None:
        self._trainer.fit(self._task.images, self._task.labels, epochs=1)

    def step(self) -> None:
        self._trainer.fit(self._data, iterations=1)

    def reset(self) -> None:
        task = self._task
        self._trainer = Trainer(
            network_on(self._backend, task.model),
            task.optimizer,
            batch_size=task.batch_size,
            sampling="full" if task.is_full_batch else "shuffle",
            seed=task.seed,
        )
        self._data = self._trainer.prepare(task.images, task.labels)

    def gradients(self, rows: NDArray[np.int64]) -> HostArrays:
        """Return the gradients that `observe` receives while a new trainer makes one update."""
        gradients: dict[str, HostArray] = {}
        trainer = _Training(self._backend, self._task)._trainer

        def observe(name: str, tensor: Any) -> None:
            _, found, key = name.partition("gradient of ")
            if found:
                gradients[key] = self._backend.to_numpy(tensor)

        trainer.train_batch(self._task.images[rows], self._task.labels[rows], observe=observe)
        return gradients

    def updates(self, batches: NDArray[np.int64]) -> Sequence[float]:
        """Make the updates with `Trainer.fit`.

        The trainer shuffles, so the images are arranged such that its shuffle gives these batches.
        """
        if self._task.is_full_batch:
            return self._trainer.fit(self._data, iterations=len(batches)).losses
        trainer, order = self._trainer, batches.ravel()
        sampler = BatchSampler(order.size, trainer.batch_size, trainer.sampling, trainer.seed)
        rows = np.empty_like(order)
        rows[sampler.order(trainer.progress.epoch).rows(0, order.size)] = order
        return trainer.fit(self._task.images[rows], self._task.labels[rows], epochs=1).losses

    def weights(self) -> HostArrays:
        return self._trainer.model.state_dict()

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        return self._trainer.model.predict(images)
