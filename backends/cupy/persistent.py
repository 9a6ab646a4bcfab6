"""Trains with the persistent kernels: which of them trains a program, and its memory."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from backends.cupy import workspace
from backends.cupy.chunk import ChunkMemory
from backends.cupy.launch import clusters, persistent_cnn, persistent_mlp
from backends.cupy.launch.graph_batch import DeviceDataset
from backends.cupy.launch.launcher import Launcher
from backends.cupy.loader import Constant
from backends.cupy.members import (
    MAX_MEMBERS,
    ByteCounter,
    Launches,
    Memory,
    copies_of_parameters,
    memory_for,
)
from backends.cupy.plan import parameters_of
from backends.operations.common import Array
from backends.program import TrainingProgram


@dataclass(frozen=True)
class _Arrays:
    """Device memory of a persistent kernel.

    Attributes:
        memory: allocated the arrays.
        chunk: inputs and results of the steps.
        parameters: copies of the parameters of several members; empty for a single training.
        scratch: other arrays of `persistent_mlp`.
    """

    memory: Memory
    chunk: ChunkMemory
    parameters: tuple[Array, ...]
    scratch: persistent_mlp.Scratch | None


class PersistentKernels:
    """Launches the persistent kernel of a program, if there is one.

    Args:
        program: the program.
        cupy: the module `cupy`.
        launcher: launches the kernels of the program.
    """

    def __init__(self, program: TrainingProgram, cupy: Any, launcher: Launcher) -> None:
        self._program = program
        self._cupy = cupy
        self._launcher = launcher
        device = cupy.cuda.Device()
        self._capability = int(device.compute_capability)
        self._multiprocessors = int(device.attributes["MultiProcessorCount"])
        self._arrays: _Arrays | None = None

    def can_train(self, dataset: DeviceDataset, batch_size: int) -> bool:
        """Return whether a persistent kernel trains with batches of this size."""
        return self._constants(dataset, batch_size) is not None

    def get(
        self,
        dataset: DeviceDataset,
        batch_size: int,
        parameters: tuple[Array, ...],
        members: int,
    ) -> Launches:
        """Return the launches of a persistent kernel; the arguments are those of `GraphCache.get`.

        Raises:
            MemoryError: the arrays of the members do not fit the memory of the device.
        """
        program, constants = self._program, self._constants(dataset, batch_size)
        assert constants is not None  # see `can_train`
        arrays = self._arrays
        if arrays is None or arrays.memory.members < members:
            arrays = self._arrays = None  # frees its memory before the new allocation
            memory = memory_for(self._cupy, members, self.bytes_per_member())
            arrays = self._arrays = _new_arrays(memory, program)
        launcher = replace(self._launcher, members=members, member_stride=arrays.memory.stride)
        parameters = arrays.parameters or parameters
        views = [array for s in program.stages for array in parameters_of(s, parameters[0])]
        train: Any = persistent_cnn.train
        if arrays.scratch is not None:
            train = partial(persistent_mlp.train, scratch=arrays.scratch)
        launch = partial(
            train,
            launcher,
            program,
            dataset,
            arrays.chunk.device,
            parameters=[view for view in views if view is not None],
            constants=constants,
        )
        return Launches(arrays.memory, arrays.chunk, parameters, launch)

    def bytes_per_member(self) -> int:
        """Return the number of bytes that each of several members needs."""
        counter = ByteCounter(members=MAX_MEMBERS)
        _new_arrays(counter, self._program)
        return counter.total

    @property
    def max_members(self) -> int:
        """Number of members that one launch can train, if memory suffices.

        The blocks of a grid barrier must be resident together, and each multiprocessor has room
        for one. A cluster has no such condition.
        """
        has_clusters = self._capability >= clusters.MIN_CAPABILITY
        if _is_cnn(self._program) or has_clusters:
            return MAX_MEMBERS
        return self._multiprocessors // clusters.BLOCKS

    def _constants(self, dataset: DeviceDataset, batch_size: int) -> dict[str, Constant] | None:
        """Return the options of the kernel; None if no persistent kernel can train."""
        if dataset.weights is not None:
            return None
        if _is_cnn(self._program):
            # The kernel numbers the steps by their images; one image may belong to several steps.
            is_suitable = batch_size == 1 and len(dataset.images) > 1
            return persistent_cnn.constants_for(self._program) if is_suitable else None
        return persistent_mlp.constants_for(
            self._program,
            batch_size=batch_size,
            capability=self._capability,
            multiprocessors=self._multiprocessors,
        )


def _is_cnn(program: TrainingProgram) -> bool:
    return program.stages[0].kind == "conv2d"


def _new_arrays(memory: Any, program: TrainingProgram) -> _Arrays:
    """Allocate the arrays of a persistent kernel."""
    is_cnn, steps = _is_cnn(program), workspace.MAX_STEPS_PER_CHUNK
    return _Arrays(
        memory=memory,
        chunk=ChunkMemory(
            memory,
            program.dtype,
            steps=steps,
            rows=steps * (1 if is_cnn else persistent_mlp.MAX_IMAGES),
        ),
        parameters=copies_of_parameters(memory, program),
        scratch=None if is_cnn else persistent_mlp.new_scratch(memory, program, steps),
    )
