"""Captures graph steps as CUDA graphs, and replays them."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from backends.cupy.launch.graph_batch import DeviceDataset, GraphBatch
from backends.cupy.launch.launcher import Launcher
from backends.cupy.members import Launches
from backends.cupy.plan import Plan
from backends.cupy.step import GraphStep
from backends.cupy.workspace import Workspace, new_workspace
from backends.operations.common import Array

# Numbers of steps in the graphs, the largest first. The smaller graphs run the rest of a chunk: its
# 40 steps are one graph of 32 and one of 8.
GRAPH_STEPS = (32, 8, 1)


@dataclass(frozen=True)
class Captured:
    """A step and graphs that contain the addresses of its arrays.

    Attributes:
        step: the step.
        graphs: graphs by their number of steps, the longest first.
    """

    step: GraphStep
    graphs: dict[int, Any]

    def has(self, dataset: DeviceDataset, parameters: tuple[Array, ...], members: int) -> bool:
        """Return whether the graphs have these arrays and this number of members."""
        pairs = zip(self.step.parameters, parameters, strict=True)
        return (
            self.step.batch.dataset.images is dataset.images
            and self.step.launcher.members == members
            and all(a is b for a, b in pairs)
        )

    def replay(self, steps: int, stream: Any) -> None:
        """Launch graphs with `steps` steps in total."""
        for length, graph in self.graphs.items():
            for _ in range(steps // length):
                graph.launch(stream=stream)
            steps %= length


class GraphCache:
    """Keeps the last captured graphs and captures new ones for other arrays or batch sizes.

    Args:
        plan: which kernels compute which stages.
        cupy: the module `cupy`.
        launcher: launches the kernels of the program.
        stream: the stream that captures; it must be the current one.
    """

    def __init__(self, plan: Plan, cupy: Any, launcher: Launcher, stream: Any) -> None:
        self._plan = plan
        self._cupy = cupy
        self._launcher = launcher
        self._stream = stream
        self._captured: Captured | None = None

    def get(
        self,
        dataset: DeviceDataset,
        batch_size: int,
        parameters: tuple[Array, ...],
        members: int,
    ) -> Launches:
        """Return the launches of graphs; capturing takes about as long as some steps.

        Args:
            dataset: the data set.
            batch_size: number of images of the largest batch.
            parameters: parameter vector and state arrays of a single training.
            members: number of members that train in the same launches.

        Raises:
            MemoryError: batches of this size do not fit the memory of the device.
        """
        self._plan = self._plan.for_pixels(dataset)
        found = self._captured
        workspace = found.step.workspace if found is not None else None
        if (
            found is None
            or workspace is None
            or found.step.plan != self._plan
            or workspace.capacity != batch_size
            or workspace.memory.members < members
        ):
            self._captured = found = workspace = None  # frees its memory before the new allocation
            workspace = new_workspace(self._cupy, self._plan, batch_size, members=members)
        parameters = workspace.parameters or parameters
        if found is None or not found.has(dataset, parameters, members):
            self._captured = found = self._captured_for(dataset, workspace, parameters, members)
        replay = partial(found.replay, stream=self._stream)
        return Launches(workspace.memory, workspace.chunk, parameters, replay)

    def _captured_for(
        self,
        dataset: DeviceDataset,
        workspace: Workspace,
        parameters: tuple[Array, ...],
        members: int,
    ) -> Captured:
        shift = self._plan.program.pixel_shift
        batch = GraphBatch(dataset, workspace.chunk.device, workspace.state, shift)
        launcher = replace(
            self._launcher,
            graph_batch=batch,
            members=members,
            member_stride=workspace.memory.stride,
        )
        step = GraphStep(self._plan, launcher, batch, workspace, parameters)
        self._load_kernels(step)
        graphs = {steps: capture(self._stream, step.launch, times=steps) for steps in GRAPH_STEPS}
        return Captured(step, graphs)

    def _load_kernels(self, step: GraphStep) -> None:
        """Run a step without images: kernels cannot be loaded during a capture."""
        chunk = step.batch.chunk
        for array in (chunk.bounds, chunk.rates, chunk.step):
            step.workspace.memory.of_all(array)[...] = 0
        step.launch()


def capture(stream: Any, launch: Callable[[], None], *, times: int = 1) -> Any:
    """Return a CUDA graph of launches.

    Args:
        stream: the current stream.
        launch: launches kernels that are loaded already, because a graph cannot contain loading.
        times: number of calls of `launch`.
    """
    stream.begin_capture()
    try:
        for _ in range(times):
            launch()
    except BaseException:
        with suppress(Exception):  # the error may have ended the capture already
            stream.end_capture()
        raise
    return stream.end_capture()
