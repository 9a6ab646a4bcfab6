"""JAX: an epoch as one compiled function; on the GPU or TPU where it finds one."""

import importlib
from typing import Any, ClassVar, Literal

from backends import Availability
from benchmarks.contenders.base import (
    Contender,
    InferenceSession,
    OperationSession,
    OperationTask,
    TrainingSession,
    TrainingTask,
)
from benchmarks.host import usable_cores
from mnist_accel.nn import SGD, Adam, Network

INSTALL = "pip install jax"


class Jax(Contender):
    """`jax.jit` of a scan over an epoch, with no library on top."""

    name: ClassVar[str] = "jax"
    ties: ClassVar[Literal["first", "recipe"]] = "first"

    def availability(self) -> Availability:
        """Add two numbers on the device."""
        try:
            jax = _jax()
            total = float(jax.numpy.ones(2).sum())
            found = f"JAX {jax.__version__} on {jax.default_backend()}"
        except (ImportError, OSError, RuntimeError) as error:
            return Availability(False, f"JAX does not work: {error}", INSTALL)
        if total != 2:
            return Availability(False, f"{found} says that 1 + 1 is {total:g}", INSTALL)
        return Availability(True, found)

    def versions(self) -> dict[str, str]:
        """Return the versions of JAX and its compiler, the device, and XLA's threads on a CPU."""
        jax, jaxlib = _jax(), importlib.import_module("jaxlib")
        return {
            "jax": str(jax.__version__),
            "jaxlib": str(jaxlib.__version__),
            "device": str(jax.devices()[0].device_kind),
            "threads": str(usable_cores()),  # XLA takes as many, and tells nobody
        }

    def device(self) -> Literal["cpu", "gpu"]:
        """Return "gpu" where JAX computes on one."""
        return "gpu" if self.availability().ok and _jax().default_backend() == "gpu" else "cpu"

    def refusal(self, task: TrainingTask) -> str:
        """Refuse optimizers that are not written here."""
        if type(task.optimizer) in (SGD, Adam):
            return ""
        return f"its step is written for SGD and Adam, not for {type(task.optimizer).__name__}"

    def peak_device_bytes(self) -> int | None:
        """Return the most that arrays took; of the GPU, JAX takes three quarters beforehand."""
        if self.device() == "cpu":
            return None
        return int(_jax().devices()[0].memory_stats()["peak_bytes_in_use"])

    def training(self, task: TrainingTask) -> TrainingSession:
        """Compile an epoch of the task."""
        training = importlib.import_module("benchmarks.contenders.jax_training")
        return training.ScannedTraining(task)  # type: ignore[no-any-return]

    def inference(self, model: Network) -> InferenceSession:
        """Prepare predictions that are compiled when a batch size comes first."""
        training = importlib.import_module("benchmarks.contenders.jax_training")
        return training.prepare_inference(model)  # type: ignore[no-any-return]

    def operation(self, task: OperationTask) -> OperationSession | None:
        """Prepare the operation as a compiled function."""
        operations = importlib.import_module("benchmarks.contenders.jax_operations")
        return operations.prepare_operation(task)  # type: ignore[no-any-return]


def _jax() -> Any:
    """Import JAX when it is needed: it takes a second, and may be missing."""
    return importlib.import_module("jax")
