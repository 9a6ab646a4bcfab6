"""Captures graph steps as CUDA graphs, and replays them."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from backends.cupy.launch.graph_batch import DeviceDataset
from backends.cupy.loader import Kernels
from backends.cupy.plan import Plan
from backends.cupy.step import GraphStep
from backends.cupy.workspace import Workspace, new_workspace
from backends.operations.common import Array
from backends.program import TrainingProgram

# One graph has this many steps; a second one has a single step, for the rest of a chunk.
STEPS_PER_GRAPH = 32


@dataclass(frozen=True)
class Captured:
    """Graphs, and the arrays whose addresses they contain.

    Attributes:
        graphs: graphs by their number of steps, the longest first.
        workspace: memory of the steps.
        dataset: the data set.
        parameters: parameter vector and state arrays of the optimizer.
    """

    graphs: dict[int, Any]
    workspace: Workspace
    dataset: DeviceDataset
    parameters: tuple[Array, ...]

    def replay(self, steps: int, stream: Any) -> None:
        """Launch graphs with `steps` steps in total."""
        for length, graph in self.graphs.items():
            for _ in range(steps // length):
                graph.launch(stream=stream)
            steps %= length


class GraphCache:
    """Keeps the last captured graphs and captures new ones for other arrays or batch sizes.

    Args:
        program: the program.
        plan: its plan.
        cupy: the module `cupy`.
        kernels: the compiled kernels.
        stream: the stream that captures; it must be the current one.
    """

    def __init__(
        self, program: TrainingProgram, plan: Plan, *, cupy: Any, kernels: Kernels, stream: Any
    ) -> None:
        self._program = program
        self._plan = plan
        self._cupy = cupy
        self._kernels = kernels
        self._stream = stream
        self._captured: Captured | None = None

    def get(
        self, dataset: DeviceDataset, batch_size: int, parameters: tuple[Array, ...]
    ) -> Captured:
        """Return graphs for these arrays; capturing takes about as long as some steps.

        Raises:
            MemoryError: batches of this size do not fit the memory of the device.
        """
        found = self._captured
        if found is not None and found.workspace.capacity == batch_size:
            pairs = zip(found.parameters, parameters, strict=True)
            if found.dataset.images is dataset.images and all(a is b for a, b in pairs):
                return found
            workspace = found.workspace
        else:
            self._captured = found = None  # frees its memory before the new allocation
            workspace = new_workspace(self._cupy, self._plan, batch_size)
        self._load_kernels(dataset, workspace, parameters)
        step = self._step(dataset, workspace, parameters)
        graphs = {length: self._capture(step, length) for length in (STEPS_PER_GRAPH, 1)}
        self._captured = Captured(graphs, workspace, dataset, parameters)
        return self._captured

    def _step(
        self, dataset: DeviceDataset, workspace: Workspace, parameters: tuple[Array, ...]
    ) -> GraphStep:
        return GraphStep(self._program, self._plan, self._kernels, dataset, workspace, parameters)

    def _capture(self, step: GraphStep, steps: int) -> Any:
        """Return a graph of some steps."""
        self._stream.begin_capture()
        try:
            for _ in range(steps):
                step.launch()
        except BaseException:
            with suppress(Exception):  # the error may have ended the capture already
                self._stream.end_capture()
            raise
        return self._stream.end_capture()

    def _load_kernels(
        self, dataset: DeviceDataset, workspace: Workspace, parameters: tuple[Array, ...]
    ) -> None:
        """Run a step without images on copies: kernels cannot be loaded during a capture."""
        chunk = workspace.chunk
        chunk.bounds[...] = 0
        chunk.rates[...] = 0
        chunk.step[...] = 0
        copies = tuple(self._cupy.array(array) for array in parameters)
        self._step(dataset, workspace, copies).launch()
        self._stream.synchronize()  # the copies must live until the step is done
