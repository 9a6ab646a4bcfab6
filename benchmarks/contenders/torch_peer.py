"""PyTorch, eager, compiled, and replayed from a CUDA graph; on the GPU where it finds one."""

import importlib
import inspect
import os
import shutil
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
from mnist_accel.nn import SGD, Adam, Network

INSTALL = "pip install torch"


class TorchEager(Contender):
    """Modules, autograd and `torch.optim`, called from Python one after the other."""

    name: ClassVar[str] = "torch-eager"
    ties: ClassVar[Literal["first", "recipe"]] = "first"

    def availability(self) -> Availability:
        """Add two numbers on the device."""
        try:
            torch = _torch()
            device = "cuda" if torch.cuda.is_available() else "cpu"
            total = float(torch.ones(2, device=device).sum())
        except (ImportError, OSError, RuntimeError) as error:
            return Availability(False, f"PyTorch does not work: {error}", INSTALL)
        if total != 2:
            return Availability(False, f"PyTorch says that 1 + 1 is {total:g} on {device}", INSTALL)
        return Availability(True, f"PyTorch {torch.__version__} on {device}")

    def versions(self) -> dict[str, str]:
        """Return PyTorch's version, its device, and the threads of its operations."""
        torch = _torch()
        cuda = torch.cuda.is_available()
        return {
            "torch": str(torch.__version__),
            "device": torch.cuda.get_device_name() if cuda else "CPU",
            "threads": str(torch.get_num_threads()),
        }

    def device(self) -> Literal["cpu", "gpu"]:
        """Return "gpu" where PyTorch finds one it can use."""
        return "gpu" if self.availability().ok and _torch().cuda.is_available() else "cpu"

    def peak_device_bytes(self) -> int | None:
        """Return the most that PyTorch's allocator has reserved."""
        return int(_torch().cuda.max_memory_reserved()) if self.device() == "gpu" else None

    def training(self, task: TrainingTask) -> TrainingSession:
        """Prepare a training step by step."""
        return _training().EagerTraining(task)  # type: ignore[no-any-return]

    def inference(self, model: Network) -> InferenceSession:
        """Prepare predictions in inference mode."""
        return _training().prepare_inference(model)  # type: ignore[no-any-return]

    def operation(self, task: OperationTask) -> OperationSession | None:
        """Prepare PyTorch's function of this name."""
        operations = importlib.import_module("benchmarks.contenders.torch_operations")
        return operations.prepare_operation(task)  # type: ignore[no-any-return]


class TorchCompile(TorchEager):
    """The whole step as one graph, compiled by Inductor."""

    name: ClassVar[str] = "torch-compile"

    def availability(self) -> Availability:
        """Look for the compiler that Inductor calls, too."""
        found = super().availability()
        if not found:
            return found
        if "isolate_recompiles" not in inspect.signature(_torch().compile).parameters:
            return Availability(False, f"{found.reason} is older than 2.13", f"{INSTALL} --upgrade")
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            return Availability(
                False, f"torch.compile needs a C++ compiler, and {compiler!r} is not there",
                "install g++, or name a compiler in CXX",
            )  # fmt: skip
        return found

    def refusal(self, task: TrainingTask) -> str:
        """Refuse optimizers that are not written as part of the graph."""
        return _refuse_optimizer(task)

    def training(self, task: TrainingTask) -> TrainingSession:
        """Compile the step for the batch sizes of the task."""
        return _training().CompiledTraining(task)  # type: ignore[no-any-return]

    def inference(self, model: Network) -> InferenceSession:
        """Prepare predictions that are compiled when a batch size comes first."""
        training = _training()
        return training.prepare_inference(model, training.compiled)  # type: ignore[no-any-return]

    def operation(self, task: OperationTask) -> OperationSession | None:
        """Return None: an operation by itself leaves nothing to join."""
        return None


class TorchCudaGraph(TorchEager):
    """The eager step, recorded as a CUDA graph: no Python, and no launches, between kernels."""

    name: ClassVar[str] = "torch-cuda-graph"

    def availability(self) -> Availability:
        """Ask for a GPU."""
        found = super().availability()
        if found and not _torch().cuda.is_available():
            return Availability(
                False, f"CUDA graphs need an NVIDIA GPU, and {found.reason} finds none",
                "run on a machine with one, with a PyTorch built for CUDA",
            )  # fmt: skip
        return found

    def refusal(self, task: TrainingTask) -> str:
        """Refuse optimizers that PyTorch cannot record."""
        return _refuse_optimizer(task)

    def training(self, task: TrainingTask) -> TrainingSession:
        """Record the step for the batch sizes of the task."""
        return _training().GraphTraining(task)  # type: ignore[no-any-return]

    def inference(self, model: Network) -> InferenceSession:
        """Prepare predictions that are recorded when a batch size comes first."""
        training = _training()
        return training.prepare_inference(model, training.graphed)  # type: ignore[no-any-return]

    def operation(self, task: OperationTask) -> OperationSession | None:
        """Return None: operations by themselves are those of torch-eager."""
        return None


def _refuse_optimizer(task: TrainingTask) -> str:
    if isinstance(task.optimizer, SGD | Adam):
        return ""
    return f"its step is written for SGD and Adam, not for {type(task.optimizer).__name__}"


def _torch() -> Any:
    """Import PyTorch when it is needed: it takes seconds, and may be missing."""
    return importlib.import_module("torch")


def _training() -> Any:
    return importlib.import_module("benchmarks.contenders.torch_training")
