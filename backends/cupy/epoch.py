"""Compiled training on the GPU: chunks of steps by a persistent kernel or by CUDA graphs.

All values that change from step to step are in device memory, so the host does nothing between the
steps of a chunk. It launches the computation of the image order, copies bounds and learning rates,
launches the steps, and fetches the losses at the end.
"""

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.cupy import workspace
from backends.cupy.graph import GraphCache
from backends.cupy.launch import persistent_cnn, persistent_mlp
from backends.cupy.launch.graph_batch import Chunk, DeviceDataset
from backends.cupy.launch.images import image_order
from backends.cupy.launch.launcher import Launcher
from backends.cupy.loader import Kernels
from backends.cupy.memory import megabytes, memory_errors
from backends.cupy.plan import parameters_of, plan_for
from backends.cupy.streams import Streams
from backends.operations.common import Array
from backends.program import ChunkResults, CompiledEpoch, Steps, TrainingProgram

# Launches the first n steps of a chunk.
LaunchSteps: TypeAlias = Callable[[int], None]


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
        device = cupy.cuda.Device()
        self._capability = int(device.compute_capability)
        self._multiprocessors = int(device.attributes["MultiProcessorCount"])
        self._stream = streams.take(self)
        self._graphs = GraphCache(plan_for(program), cupy, self._launcher, self._stream)
        weighted = plan_for(program, is_weighted=True)
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
        parameters = (weights, *(state[name] for name in self._program.update.state_names))
        count = len(steps.bounds)
        losses, correct = np.zeros(count), np.zeros(count, np.int64)
        # Other streams may have changed the parameters.
        self._cupy.cuda.get_current_stream().synchronize()
        with self._stream:
            try:
                chunk, launch = self._prepare(data, steps.batch_size, parameters)
                length = len(chunk.bounds)
                for first in range(0, count, length):
                    part = slice(first, min(first + length, count))
                    losses[part], correct[part] = self._run_chunk(chunk, launch, steps, part)
            finally:  # after an interrupt, too, the caller reads the parameters
                self._stream.synchronize()
        is_finite = bool(np.isfinite(losses).all() and self._cupy.isfinite(weights).all())
        return ChunkResults(losses, correct, is_finite)

    def _prepare(
        self, dataset: DeviceDataset, batch_size: int, parameters: tuple[Array, ...]
    ) -> tuple[Chunk, LaunchSteps]:
        """Return the arrays of a chunk, and the function that launches its steps.

        The choice depends on the nominal batch size, not on the batches of these steps, so a
        training uses the same kernels for every step, also if it is divided into several calls.
        """
        if dataset.weights is not None:
            return self._captured(self._weighted_graphs, dataset, batch_size, parameters)
        program, weights = self._program, parameters[0]
        if batch_size == 1 and (constants := persistent_cnn.constants_for(program)):
            convolution, linear = program.stages
            filters, _ = parameters_of(convolution, weights)
            cnn = (filters, *parameters_of(linear, weights))
            chunk = self._persistent_chunk
            train = partial(persistent_cnn.train, self._launcher, program, dataset, chunk)
            return chunk, partial(train, parameters=cnn, constants=constants)
        if batch_size <= persistent_mlp.MAX_IMAGES and (
            constants := persistent_mlp.constants_for(
                program, capability=self._capability, multiprocessors=self._multiprocessors
            )
        ):
            mlp = tuple(array for s in program.stages for array in parameters_of(s, weights))
            chunk, exchange = self._persistent_chunk, self._mlp_exchange
            train = partial(persistent_mlp.train, self._launcher, program, dataset, chunk)
            return chunk, partial(train, parameters=mlp, exchange=exchange, constants=constants)
        return self._captured(self._graphs, dataset, batch_size, parameters)

    def _captured(
        self,
        graphs: GraphCache,
        dataset: DeviceDataset,
        batch_size: int,
        parameters: tuple[Array, ...],
    ) -> tuple[Chunk, LaunchSteps]:
        """Return the arrays of a chunk, and the function that replays graph steps."""
        captured = graphs.get(dataset, batch_size, parameters)
        return captured.step.workspace.chunk, partial(captured.replay, stream=self._stream)

    def _run_chunk(
        self, chunk: Chunk, launch: LaunchSteps, steps: Steps, part: slice
    ) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Run the steps of a chunk, and return their losses and numbers of correct predictions."""
        cupy, bounds = self._cupy, steps.bounds[part]
        numbers = steps.before + 1 + np.arange(part.start, part.stop)
        rates = np.stack(self._program.update.rates(steps.rates[part], numbers), axis=1)
        count, (begin, end) = len(bounds), (bounds[0, 0], bounds[-1, 1])
        image_order(self._launcher, steps.order, begin, chunk.rows[: end - begin])
        chunk.bounds[:count] = cupy.asarray((bounds - begin).astype(np.int32))
        chunk.rates[:count] = cupy.asarray(rates.astype(self._program.dtype))
        chunk.step[...] = 0
        launch(count)
        return cupy.asnumpy(chunk.losses[:count]), cupy.asnumpy(chunk.correct[:count])

    @cached_property
    def _persistent_chunk(self) -> Chunk:
        """Chunk of the persistent kernels."""
        return workspace.new_chunk(
            self._cupy,
            self._program.dtype,
            steps=workspace.MAX_STEPS_PER_CHUNK,
            capacity=persistent_mlp.MAX_IMAGES,
        )

    @cached_property
    def _mlp_exchange(self) -> tuple[Array, Array]:
        """Partial sums and grid barrier of `persistent_mlp`."""
        size = persistent_mlp.partial_sums_size(self._program)
        return self._cupy.empty(size, self._program.dtype), self._cupy.zeros(2, "uint32")
