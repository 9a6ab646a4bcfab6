"""Compiled training on the GPU: chunks of steps by a persistent kernel or by CUDA graphs.

All values that change from step to step are in device memory, so the host does nothing between the
steps of a chunk. It launches the computation of the image order, copies bounds and learning rates,
launches the steps, and fetches the losses at the end.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.cupy.chunk import ChunkMemory
from backends.cupy.graph import GraphCache
from backends.cupy.launch.graph_batch import DeviceDataset
from backends.cupy.launch.images import image_order
from backends.cupy.launch.launcher import Launcher
from backends.cupy.loader import Kernels
from backends.cupy.members import MAX_MEMBERS, Launches
from backends.cupy.memory import free_bytes, megabytes, memory_errors
from backends.cupy.persistent import PersistentKernels
from backends.cupy.plan import plan_for
from backends.cupy.streams import Streams
from backends.cupy.workspace import bytes_per_member
from backends.operations.common import Array
from backends.order import OrderPart
from backends.program import ChunkResults, CompiledEpoch, MemberSteps, Steps, TrainingProgram


class CupyEpoch(CompiledEpoch):
    """A training program on the GPU.

    Args:
        program: the program.
        cupy: the module `cupy`.
        kernels: the compiled kernels.
        streams: the streams of the backend.

    Raises:
        NotCompiledError: a part of the program has no kernel.
    """

    def __init__(
        self, program: TrainingProgram, *, cupy: Any, kernels: Kernels, streams: Streams
    ) -> None:
        self._program = program
        self._cupy = cupy
        self._launcher = Launcher(kernels, program.dtype)
        self._stream = streams.take(self)
        self._persistent = PersistentKernels(program, cupy, self._launcher)
        capability = int(cupy.cuda.Device().compute_capability)
        self._plan = plan_for(program, capability=capability)
        self._graphs = GraphCache(self._plan, cupy, self._launcher, self._stream)
        weighted = plan_for(program, capability=capability, is_weighted=True)
        self._weighted_graphs = GraphCache(weighted, cupy, self._launcher, self._stream)

    takes_weights = True

    def load(
        self, pixels: NDArray[Any], labels: NDArray[Any], weights: NDArray[Any] | None = None
    ) -> DeviceDataset:
        """Copy the data set to the device, with the dtype of its pixels.

        Raises:
            MemoryError: the data set does not fit the memory of the device.
        """
        with memory_errors(self._cupy, f"the data set needs {megabytes(pixels.nbytes)}"):
            number = self._program.dtype
            return DeviceDataset(
                self._cupy.array(pixels, order="C"),
                self._cupy.array(labels, dtype="int32" if labels.ndim == 1 else number, order="C"),
                None if weights is None else self._cupy.array(weights, dtype=number),
            )

    def run(
        self, data: DeviceDataset, steps: Steps, weights: Array, state: Mapping[str, Array]
    ) -> ChunkResults:
        """Run the steps, one chunk after the other; `CompiledEpoch.run` describes the arguments.

        Raises:
            MemoryError: batches of this size do not fit the memory of the device.
        """
        return self.run_members(data, [MemberSteps(steps, weights, state)])[0]

    def members_at_once(self, data: DeviceDataset, batch_size: int) -> int:
        """Return how many members fit half of the free memory.

        The other half is for the evaluations and for what CuPy's memory pool cannot reuse.
        """
        most = MAX_MEMBERS
        if self._persistent.can_train(data, batch_size):
            most = self._persistent.max_members
            needed = self._persistent.bytes_per_member()
        else:
            plan = self._plan.for_pixels(data)
            needed = bytes_per_member(plan, batch_size, members=most)
        # The training of each member keeps its parameters, their gradients, the state of its
        # optimizer, and copies of parameters and state.
        vectors = 3 + 2 * len(self._program.update.state_names)
        needed += vectors * self._program.parameters * np.dtype(self._program.dtype).itemsize
        return max(1, min(most, free_bytes(self._cupy) // 2 // needed))

    def run_members(
        self, data: DeviceDataset, members: Sequence[MemberSteps]
    ) -> list[ChunkResults]:
        """Run steps of all members in the same launches; the base class describes the arguments.

        Raises:
            MemoryError: batches of this size do not fit the memory of the device.
        """
        counts = [len(member.steps.bounds) for member in members]
        losses = np.zeros((len(members), max(counts)))
        correct = np.zeros(losses.shape, np.int64)
        finite = np.ones(len(members), bool)
        names = self._program.update.state_names
        own = [(one.weights, *(one.state[name] for name in names)) for one in members]
        # Other streams may have changed the parameters.
        self._cupy.cuda.get_current_stream().synchronize()
        with self._stream:
            try:
                launches = self._launches(data, members[0].steps.batch_size, own)
                parameters = map(launches.memory.of_all, launches.parameters)
                trained = list(zip(*parameters, strict=True))[: len(members)]
                has_copies = launches.memory.members > 1
                if has_copies:
                    _copy(own, trained)
                steps = [member.steps for member in members]
                part = slice(0, 0)
                while part.stop < max(counts):
                    part = _next_part(launches.chunk, steps, part.stop)
                    losses[:, part], correct[:, part], is_finite = self._run_chunk(
                        launches, steps, part
                    )
                    finite &= is_finite
                if has_copies:
                    _copy(trained, own)
            finally:  # after an interrupt, too, the caller reads the parameters
                self._stream.synchronize()
        return [
            ChunkResults(
                losses[i, :count],
                correct[i, :count],
                bool(finite[i] and np.isfinite(losses[i, :count]).all()),
            )
            for i, count in enumerate(counts)
        ]

    def _launches(
        self, dataset: DeviceDataset, batch_size: int, parameters: Sequence[tuple[Array, ...]]
    ) -> Launches:
        """Return the launches of a chunk for some members, with the parameters of each.

        The choice depends on the nominal batch size, not on the batches of these steps, so a
        training uses the same kernels for every step, also if it is divided into several calls.
        """
        kernels: PersistentKernels | GraphCache = self._persistent
        if not self._persistent.can_train(dataset, batch_size):
            kernels = self._graphs if dataset.weights is None else self._weighted_graphs
        return kernels.get(dataset, batch_size, parameters[0], members=len(parameters))

    def _run_chunk(
        self, launches: Launches, members: Sequence[Steps], part: slice
    ) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.bool_]]:
        """Run steps of all members, and return their results, as `ChunkMemory.download` does.

        A member without some of the steps has batches without images instead.
        """
        chunk, count = launches.chunk, part.stop - part.start
        bounds = np.zeros((len(members), count, 2), np.int32)
        rates = np.zeros((len(members), count, 3), self._program.dtype)
        rows = launches.memory.of_all(chunk.device.rows)
        for member, steps in enumerate(members):
            if part.start >= len(steps.bounds):
                continue
            own = steps.select(part.start, part.stop)
            length = len(own.bounds)
            numbers = own.before + 1 + np.arange(length)
            own_rates = self._program.update.rates(own.rates, numbers)
            rates[member, :length] = np.stack(own_rates, axis=1)
            bounds[member, :length] = own.bounds
            bounds[member, length:] = own.bounds[-1, 1]
            self._set_rows(rows[member], own.parts)
        chunk.upload(bounds, rates)
        launches.launch(count)
        return chunk.download(self._stream, len(members), count)

    def _set_rows(self, rows: Array, parts: Sequence[OrderPart]) -> None:
        """Set the rows of the steps to those at the positions of all parts."""
        first = 0
        for order, begin, end in parts:
            image_order(self._launcher, order, begin, rows[first : first + end - begin])
            first += end - begin


def _next_part(chunk: ChunkMemory, members: Sequence[Steps], first: int) -> slice:
    """Return the steps from `first` on that fit a chunk; at least one.

    Steps that train with the same images, as those of full batches, share their rows.
    """
    last = min(first + chunk.steps, max(len(steps.bounds) for steps in members))
    for steps in members:
        bounds = steps.bounds[first:last]
        if len(bounds):
            fitting = np.searchsorted(bounds[:, 1], bounds[0, 0] + chunk.rows, side="right")
            if fitting < len(bounds):
                last = first + max(1, int(fitting))
    return slice(first, last)


def _copy(source: Sequence[tuple[Array, ...]], target: Sequence[tuple[Array, ...]]) -> None:
    """Copy the parameters of each member."""
    for arrays, copies in zip(source, target, strict=True):
        for array, copy in zip(arrays, copies, strict=True):
            copy[...] = array
