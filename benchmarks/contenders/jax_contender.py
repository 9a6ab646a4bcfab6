"""JAX: an epoch as one compiled function; on a GPU or TPU if it finds one.

JAX takes a second to import and may be missing, so this module imports it, and the modules that use
it, inside functions.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from backends import Availability, pip
from benchmarks.contenders.base import (
    Contender,
    InferenceSession,
    OperationSession,
    OperationTask,
    PopulationSession,
    TrainingSession,
    TrainingTask,
)
from benchmarks.host import usable_cores
from mnist_accel.nn import SGD, Adam, Network

INSTALL = pip("install", "jax")


class Jax(Contender):
    """`jax.jit` of a scan over an epoch, without another library on top."""

    name: ClassVar[str] = "jax"

    def availability(self) -> Availability:
        """Return whether JAX can add two numbers on its device."""
        try:
            jax = _jax()
            total = float(jax.numpy.ones(2).sum())
            found = f"JAX {jax.__version__} on {jax.default_backend()}"
        except (ImportError, OSError, RuntimeError) as error:
            return Availability(False, f"JAX does not work: {error}", INSTALL)
        if total != 2:
            return Availability(False, f"{found} computes 1 + 1 = {total:g}", INSTALL)
        return Availability(True, found)

    def versions(self) -> dict[str, str]:
        """Return the versions of JAX and its compiler, its device and its number of threads."""
        import jaxlib

        jax = _jax()
        return {
            "jax": str(jax.__version__),
            "jaxlib": str(jaxlib.__version__),
            "device": str(jax.devices()[0].device_kind),
            "threads": str(usable_cores()),  # XLA has no function that returns its threads
        }

    def device(self) -> Literal["cpu", "gpu"]:
        """Return "gpu" if JAX computes on one."""
        return "gpu" if self.availability().ok and _jax().default_backend() == "gpu" else "cpu"

    def skip_reason(self, task: TrainingTask) -> str:
        """Return why the optimizer is not supported; empty if it is."""
        if type(task.optimizer) in (SGD, Adam):
            return ""
        return f"its step supports SGD and Adam, not {type(task.optimizer).__name__}"

    def peak_device_bytes(self) -> int | None:
        """Return the peak memory of arrays; JAX reserves three quarters of the GPU at the start."""
        if self.device() == "cpu":
            return None
        return int(_jax().devices()[0].memory_stats()["peak_bytes_in_use"])

    def training(self, task: TrainingTask) -> TrainingSession:
        """Prepare a training that compiles an epoch."""
        from benchmarks.contenders.jax_training import ScannedTraining

        return ScannedTraining(task)

    def population(self, members: Sequence[TrainingTask]) -> PopulationSession:
        """Prepare networks that `vmap` trains together."""
        from benchmarks.contenders.jax_population import VmappedTraining

        return VmappedTraining(members)

    def inference(self, model: Network) -> InferenceSession:
        """Prepare predictions that are compiled at the first call of each batch size."""
        from benchmarks.contenders.jax_training import prepare_inference

        return prepare_inference(model)

    def operation(self, task: OperationTask) -> OperationSession | None:
        """Prepare the operation as a compiled function."""
        from benchmarks.contenders.jax_operations import prepare_operation

        return prepare_operation(task)


def _jax() -> Any:
    import jax

    return jax
