"""PyTorch, eager, compiled, and replayed from a CUDA graph; on a GPU if it finds one.

PyTorch takes seconds to import and may be missing, so this module imports it, and the modules that
use it, inside functions.
"""

import os
import shutil
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
from mnist_accel.nn import SGD, Adam, Network

INSTALL = pip("install", "torch")


class TorchEager(Contender):
    """Modules, autograd and `torch.optim`, which Python calls operation by operation."""

    name: ClassVar[str] = "torch-eager"
    mode: ClassVar[Literal["eager", "compiled", "graph"]] = "eager"

    def availability(self) -> Availability:
        """Return whether PyTorch can add two numbers on its device."""
        try:
            torch = _torch()
            device = "cuda" if torch.cuda.is_available() else "cpu"
            total = float(torch.ones(2, device=device).sum())
        except (ImportError, OSError, RuntimeError) as error:
            return Availability(False, f"PyTorch does not work: {error}", INSTALL)
        if total != 2:
            return Availability(False, f"PyTorch computes 1 + 1 = {total:g} on {device}", INSTALL)
        return Availability(True, f"PyTorch {torch.__version__} on {device}")

    def versions(self) -> dict[str, str]:
        """Return PyTorch's version, its device and its number of threads."""
        torch = _torch()
        cuda = torch.cuda.is_available()
        return {
            "torch": str(torch.__version__),
            "device": torch.cuda.get_device_name() if cuda else "CPU",
            "threads": str(torch.get_num_threads()),
        }

    def device(self) -> Literal["cpu", "gpu"]:
        """Return "gpu" if PyTorch finds a GPU that it can use."""
        return "gpu" if self.availability().ok and _torch().cuda.is_available() else "cpu"

    def peak_device_bytes(self) -> int | None:
        """Return the peak memory that PyTorch's allocator reserved."""
        return int(_torch().cuda.max_memory_reserved()) if self.device() == "gpu" else None

    def skip_reason(self, task: TrainingTask) -> str:
        """Return why the optimizer cannot be part of a graph; empty if nothing prevents it."""
        if self.mode == "eager" or isinstance(task.optimizer, SGD | Adam):
            return ""
        return f"its step supports SGD and Adam, not {type(task.optimizer).__name__}"

    def training(self, task: TrainingTask) -> TrainingSession:
        """Build the module; compile or record the step for each batch size of the task."""
        from benchmarks.contenders.torch_training import SESSIONS

        return SESSIONS[self.mode](task)

    def population(self, members: Sequence[TrainingTask]) -> PopulationSession:
        """Prepare networks that `torch.func` trains together, in eager mode only."""
        if self.mode != "eager" or members[0].optimizer.kind not in ("sgd", "adam"):
            return super().population(members)
        from benchmarks.contenders.torch_population import StackedTraining

        return StackedTraining(members)

    def inference(self, model: Network) -> InferenceSession:
        """Build the module; compile or record the forward pass at the first call of each shape."""
        from benchmarks.contenders.torch_training import prepare_inference

        return prepare_inference(model, self.mode)

    def operation(self, task: OperationTask) -> OperationSession | None:
        """Prepare PyTorch's function of this name.

        Single operations are measured in eager mode only: a graph of one operation saves nothing.
        """
        if self.mode != "eager":
            return None
        from benchmarks.contenders.torch_operations import prepare_operation

        return prepare_operation(task)


class TorchCompile(TorchEager):
    """The whole step as one graph, compiled by Inductor."""

    name: ClassVar[str] = "torch-compile"
    mode: ClassVar[Literal["eager", "compiled", "graph"]] = "compiled"

    def availability(self) -> Availability:
        """Return whether PyTorch and the compiler of Inductor are installed."""
        found = super().availability()
        if not found:
            return found
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            return Availability(
                False, f"torch.compile needs a C++ compiler; {compiler!r} was not found",
                "install g++, or set CXX to a compiler",
            )  # fmt: skip
        return found


class TorchCudaGraph(TorchEager):
    """The eager step, recorded as a CUDA graph and replayed without Python between kernels."""

    name: ClassVar[str] = "torch-cuda-graph"
    mode: ClassVar[Literal["eager", "compiled", "graph"]] = "graph"

    def availability(self) -> Availability:
        """Return whether PyTorch can use a GPU."""
        found = super().availability()
        if found and not _torch().cuda.is_available():
            return Availability(
                False, f"CUDA graphs need an NVIDIA GPU; {found.reason} finds none",
                "run on a machine with one, with a PyTorch built for CUDA",
            )  # fmt: skip
        return found


def _torch() -> Any:
    import torch

    return torch
