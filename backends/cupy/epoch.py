"""Compiled epochs on the GPU: a step is captured once as a CUDA graph, and replayed.

A replay launches all kernels of some steps in one call, which takes the host as long as one launch.
The kernels find in memory what changes from step to step (see kernels/input.cuh), so the host
has nothing to do between the steps of a section: it has the order of the images computed there,
copies the learning rates, replays, and fetches the losses at the end.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.cupy import workspace as cupy_workspace
from backends.cupy.launch import persistent
from backends.cupy.launch.launches import Data, Launches, Section
from backends.cupy.loader import Kernels
from backends.cupy.memory import megabytes, memory_errors
from backends.cupy.step import CapturedStep, parameters_of
from backends.cupy.workspace import Workspace, new_section, new_workspace
from backends.operations.common import Array
from backends.program import CompiledEpoch, Steps, TrainingProgram

# A graph holds this many steps, a second one a single step for what is left.
STEPS_A_GRAPH = 32


@dataclass(frozen=True)
class Captured:
    """Graphs of steps, and the arrays whose addresses they hold.

    Attributes:
        graphs: by how many steps they do, the longest first.
        workspace: of the steps.
        data: the data set.
        parameters: the parameter vector, and the arrays of the optimizer.
    """

    graphs: dict[int, Any]
    workspace: Workspace
    data: Data
    parameters: tuple[Array, ...]


@dataclass(frozen=True)
class Resident:
    """What a kernel needs that does many steps.

    Attributes:
        section: the steps.
        parts: what blocks hand to each other; a block by itself has no use for it.
        barrier: where they wait for each other.
    """

    section: Section
    parts: Array
    barrier: Array


class CupyEpoch(CompiledEpoch):
    """A program as CUDA graphs.

    Args:
        program: what to run.
        cupy: CuPy.
        kernels: its kernels.

    Raises:
        NotCompiledError: there is no kernel for part of the program.
    """

    def __init__(self, program: TrainingProgram, *, cupy: Any, kernels: Kernels) -> None:
        self._program = program
        self._step = CapturedStep(program, kernels)
        self._cupy = cupy
        self._launches = Launches(kernels, program.dtype)
        device = cupy.cuda.Device()
        self._capability = int(device.compute_capability)
        self._multiprocessors = int(device.attributes["MultiProcessorCount"])
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._captured: Captured | None = None
        self._resident: Resident | None = None

    def load(self, pixels: NDArray[Any], labels: NDArray[np.int64]) -> Data:
        """Copy the data set to the device, pixels as they are.

        Raises:
            MemoryError: the device has no room for it.
        """
        with memory_errors(self._cupy, f"the data set needs {megabytes(pixels.nbytes)}"):
            return Data(
                self._cupy.array(pixels, order="C"), self._cupy.array(labels, dtype="int32")
            )

    def run(
        self, data: Data, steps: Steps, weights: Array, state: Mapping[str, Array]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Replay graphs, a section of the steps after the other.

        Raises:
            MemoryError: the device has no room for batches of this size; says which would fit.
        """
        parameters = (weights, *(state[name] for name in self._program.update.state_names))
        count = len(steps.bounds)
        losses, correct = np.zeros(count), np.zeros(count, np.int64)
        # Others may have changed the parameters on a stream of their own.
        self._cupy.cuda.get_current_stream().synchronize()
        with self._stream:
            try:
                section, launch = self._prepare(data, steps, parameters)
                length = len(section.bounds)
                for first in range(0, count, length):
                    part = slice(first, min(first + length, count))
                    losses[part], correct[part] = self._run_section(section, launch, steps, part)
            finally:  # whoever interrupts will look at the parameters
                self._stream.synchronize()
        return losses, correct

    def _prepare(
        self, data: Data, steps: Steps, parameters: tuple[Array, ...]
    ) -> tuple[Section, Callable[[int], None]]:
        """Return where the steps of a section are put, and what launches so many of them."""
        # Not the largest of these steps: however a training is cut, a step is computed in one way.
        batch_size = steps.batch_size
        weights, *_ = parameters
        if batch_size == 1 and (constants := persistent.one_by_one(self._program)):
            resident = self._get_resident()
            train = partial(self._train_one_by_one, data, resident, weights, constants)
            return resident.section, train
        if batch_size <= persistent.MOST_IMAGES and (
            constants := persistent.small_batches(
                self._program,
                capability=self._capability,
                multiprocessors=self._multiprocessors,
            )
        ):
            resident = self._get_resident()
            train = partial(self._train_small_batches, data, resident, weights, constants)
            return resident.section, train
        captured = self._capture(data, batch_size, parameters)
        return captured.workspace.section, partial(self._replay, captured)

    def _run_section(
        self, section: Section, launch: Callable[[int], None], steps: Steps, part: slice
    ) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Do some steps, and wait for them."""
        cupy, bounds = self._cupy, steps.bounds[part]
        count, (begin, end) = len(bounds), (bounds[0, 0], bounds[-1, 1])
        self._launches.order(steps.order, begin, section.rows[: end - begin])
        section.bounds[:count] = cupy.asarray((bounds - begin).astype(np.int32))
        section.rates[:count] = cupy.asarray(self._rates(steps, part))
        section.step[...] = 0
        launch(count)
        return cupy.asnumpy(section.losses[:count]), cupy.asnumpy(section.correct[:count])

    def _replay(self, captured: Captured, count: int) -> None:
        """Launch graphs that do so many steps together."""
        for length, graph in captured.graphs.items():
            for _ in range(count // length):
                graph.launch(stream=self._stream)
            count %= length

    def _train_one_by_one(
        self,
        data: Data,
        resident: Resident,
        weights: Array,
        constants: persistent.Constants,
        count: int,
    ) -> None:
        """Launch the kernel that does so many steps with one image each."""
        program, (convolution, linear) = self._program, self._program.stages
        assert convolution.pooling is not None
        filters, _ = parameters_of(convolution, weights)
        self._launches.train_one_by_one(
            data,
            resident.section,
            count,
            (filters, *parameters_of(linear, weights)),
            shift=program.pixel_shift,
            weight_decay=program.update.settings["weight_decay"],
            ties=convolution.pooling.ties,
            constants=constants,
        )

    def _train_small_batches(
        self,
        data: Data,
        resident: Resident,
        weights: Array,
        constants: persistent.Constants,
        count: int,
    ) -> None:
        """Launch the kernel that does so many steps with few images each."""
        program, (first, second) = self._program, self._program.stages
        self._launches.train_small_batches(
            data,
            resident.section,
            count,
            (*parameters_of(first, weights), *parameters_of(second, weights)),
            resident.parts,
            resident.barrier,
            shift=program.pixel_shift,
            weight_decay=program.update.settings["weight_decay"],
            constants=constants,
        )

    def _get_resident(self) -> Resident:
        """Return what kernels that do many steps need; made once."""
        if self._resident is None:
            dtype = self._program.dtype
            (hidden, *_) = self._program.stages[0].output_shape
            parts = 2 * persistent.BLOCKS * persistent.MOST_IMAGES * hidden
            self._resident = Resident(
                section=new_section(
                    *(self._cupy, dtype),
                    steps=cupy_workspace.MOST_STEPS_A_SECTION,
                    capacity=persistent.MOST_IMAGES,
                ),
                parts=self._cupy.empty(parts, dtype),
                barrier=self._cupy.zeros(2, "uint32"),
            )
        return self._resident

    def _rates(self, steps: Steps, part: slice) -> NDArray[Any]:
        """Return the learning rate of each step, and what Adam multiplies its means by."""
        number = steps.before + 1 + np.arange(part.start, part.stop)
        rates = self._program.update.rates(steps.rates[part], number)
        return np.stack(rates, axis=1).astype(self._program.dtype)

    # ------------------------------------------------------------------------------------ capture

    def _capture(self, data: Data, batch_size: int, parameters: tuple[Array, ...]) -> Captured:
        """Return graphs for these arrays and batches; capturing takes as long as some steps."""
        found = self._captured
        if found is not None and found.workspace.capacity == batch_size:
            same = [found.data.images is data.images]
            same += [one is other for one, other in zip(found.parameters, parameters, strict=True)]
            if all(same):
                return found
            workspace = found.workspace
        else:
            self._captured = found = None  # its memory may be needed
            workspace = new_workspace(self._cupy, self._step.plan, batch_size)
        self._load_kernels(data, workspace, parameters)
        graphs = {}
        for length in (STEPS_A_GRAPH, 1):
            self._stream.begin_capture()
            try:
                for _ in range(length):
                    self._step.launch(data, workspace, parameters)
            except BaseException:
                with suppress(Exception):  # what has gone wrong often ends the capture itself
                    self._stream.end_capture()
                raise
            graphs[length] = self._stream.end_capture()
        self._captured = Captured(graphs, workspace, data, parameters)
        return self._captured

    def _load_kernels(
        self, data: Data, workspace: Workspace, parameters: tuple[Array, ...]
    ) -> None:
        """Do a step without images, on copies: kernels cannot be loaded while one captures."""
        section = workspace.section
        section.bounds[...] = 0
        section.rates[...] = 0
        section.step[...] = 0
        copies = tuple(self._cupy.array(array) for array in parameters)
        self._step.launch(data, workspace, copies)
        self._stream.synchronize()  # before the copies go
