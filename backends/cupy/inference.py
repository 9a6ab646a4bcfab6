"""Compiled predictions on the GPU: one copy to the device, one CUDA graph, one copy back."""

import math
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.cupy.forward import forward
from backends.cupy.graph import capture
from backends.cupy.launch.graph_batch import Chunk, DeviceDataset, GraphBatch, StepState
from backends.cupy.launch.launcher import Launcher
from backends.cupy.launch.losses import NUMBERS, loss_outputs
from backends.cupy.launch.pooling import mask_dtype
from backends.cupy.loader import Kernels
from backends.cupy.members import Memory
from backends.cupy.plan import COMPILED, max_pooling_of, with_gathering_stage
from backends.cupy.streams import Streams
from backends.cupy.transfers import Transfer
from backends.operations.common import Array
from backends.program import CompiledInference, InputRangeError, Program

# A graph takes up to this many images. Few sizes, because each needs a capture and memory; blocks
# of images that a call does not have end at once.
CAPACITIES = (1, 8, 64, 512, 4096)
MAX_VALUES = 1 << 26  # elements of the largest array of a graph


@dataclass(frozen=True)
class _Captured:
    """A graph that predicts up to a number of images, with the arrays that it uses."""

    inputs: Transfer
    outputs: Transfer
    graph: Any
    kept: tuple[Any, ...]  # arrays whose addresses the graph contains


class CupyInference(CompiledInference):
    """Compiled predictions on one GPU.

    Args:
        program: network and loss.
        cupy: the module `cupy`.
        kernels: the compiled kernels.
        streams: the streams of the backend.
        select: returns a context in which the GPU of the backend is the current one.

    Raises:
        NotCompiledError: a part of the program has no kernel.
    """

    def __init__(
        self,
        program: Program,
        *,
        cupy: Any,
        kernels: Kernels,
        streams: Streams,
        select: Callable[[], AbstractContextManager[None]],
    ) -> None:
        COMPILED.check(program)
        self._program = program
        self._cupy = cupy
        self._launcher = Launcher(kernels, program.dtype)
        self._select = select
        with select():
            self._stream = streams.take(self)
        self._stages = with_gathering_stage(program.stages, has_classifier=False)
        largest = max(math.prod(s) for p in self._stages for s in (p.input_shape, p.output_shape))
        self._capacities = [n for n in CAPACITIES if n == 1 or n * largest <= MAX_VALUES]
        self._weights: Array | None = None
        self._captured: dict[tuple[int, str, bool], _Captured] = {}
        self._lock = threading.Lock()  # the graphs and buffers are shared by all calls

    def predict(self, weights: Array, pixels: NDArray[Any], *, probabilities: bool) -> NDArray[Any]:
        """Predict up to 4096 images per graph; see `CompiledInference.predict`.

        Raises:
            MemoryError: the graph does not fit the memory of the device.
        """
        if not self._is_in_range(pixels):
            raise InputRangeError
        classes = math.prod(self._stages[-1].output_shape)
        results = np.empty((len(pixels), classes), self._program.dtype)
        probabilities = probabilities and self._program.loss != NUMBERS
        with self._lock, self._select():
            # Other streams may have changed the weights.
            self._cupy.cuda.get_current_stream().synchronize()
            if weights is not self._weights:  # the graphs contain its address
                self._captured.clear()
                self._weights = weights
            most = self._capacities[-1]
            with self._stream:
                for first in range(0, len(pixels), most):
                    part = slice(first, first + most)
                    captured = self._graph_for(pixels[part], probabilities=probabilities)
                    _run(captured, pixels[part], results[part], self._stream)
        return results

    def _is_in_range(self, pixels: NDArray[Any]) -> bool:
        """Return whether pixels are in 0…1 and features are finite."""
        if pixels.dtype.kind == "u":
            return True
        if self._program.takes_pixels:
            return bool(pixels.min() >= 0 and pixels.max() <= 1)  # false for NaN
        return bool(np.isfinite(pixels).all())

    def _graph_for(self, pixels: NDArray[Any], *, probabilities: bool) -> _Captured:
        """Return a graph for this number of images and this dtype."""
        capacity = next(n for n in self._capacities if n >= len(pixels))
        key = capacity, str(pixels.dtype), probabilities
        if key not in self._captured:
            self._captured[key] = self._capture(*key)
        return self._captured[key]

    def _capture(self, capacity: int, dtype: str, probabilities: bool) -> _Captured:
        """Capture a graph; kernels are loaded before, by a forward pass without images."""
        cupy, real, last = self._cupy, self._program.dtype, self._stages[-1]
        pixels = math.prod(self._stages[0].input_shape)
        memory = Memory(cupy)
        inputs = Transfer(memory, step=((3,), "int32"), images=((capacity, pixels), dtype))
        results = Transfer(memory, values=((capacity, *last.output_shape), real))
        batch = self._batch(inputs, capacity)
        launcher = replace(self._launcher, graph_batch=batch)
        arrays = [self._stage_arrays(number, capacity) for number in range(len(self._stages))]
        if not probabilities:
            arrays[-1] = results.device["values"], arrays[-1][1]

        def launch() -> None:
            x: Any = batch
            for stage, (y, mask) in zip(self._stages, arrays, strict=True):
                x = x if x is batch else x.reshape(capacity, *stage.input_shape)
                forward(launcher, stage, x, self._weights, y, mask)
                x = y
            if probabilities:
                loss_outputs(launcher, self._program.loss, x, results.device["values"])

        inputs.host["step"][...] = 0
        inputs.upload(rows=0)
        launch()
        self._stream.synchronize()
        graph = capture(self._stream, launch)
        return _Captured(inputs, results, graph, kept=(batch, *arrays))

    def _batch(self, inputs: Transfer, capacity: int) -> GraphBatch:
        """Return the images of a graph as the batch of a chunk with one step."""
        cupy, real = self._cupy, self._program.dtype
        chunk = Chunk(
            rows=cupy.asarray(np.arange(capacity, dtype=np.int32)),
            bounds=cupy.zeros((1, 2), "int32"),
            rates=cupy.zeros((1, 3), real),
            step=inputs.device["step"],
            diverged=cupy.zeros(1, "int32"),
            losses=cupy.empty(1, "float64"),
            correct=cupy.empty(1, "int32"),
        )
        state = StepState(
            batch=cupy.empty(2, "int32"),
            rates=cupy.empty(3, real),
            image_losses=cupy.empty(capacity, real),
            image_correct=cupy.empty(capacity, "int32"),
        )
        dataset = DeviceDataset(inputs.device["images"], labels=chunk.rows)
        return GraphBatch(dataset, chunk, state, self._program.pixel_shift)

    def _stage_arrays(self, number: int, capacity: int) -> tuple[Array, Array | None]:
        """Return the output and the tie masks of a stage."""
        stage = self._stages[number]
        shape = capacity, *stage.output_shape
        pooling = max_pooling_of(stage)
        mask = pooling and self._cupy.empty(shape, mask_dtype(pooling.size))
        return self._cupy.empty(shape, self._program.dtype), mask


def _run(captured: _Captured, pixels: NDArray[Any], results: NDArray[Any], stream: Any) -> None:
    """Predict the images of one graph."""
    count, inputs, outputs = len(pixels), captured.inputs, captured.outputs
    inputs.host["step"][...] = 0, 0, count
    inputs.host["images"][0, :count] = pixels
    try:
        inputs.upload(rows=count)
        captured.graph.launch(stream=stream)
        outputs.download(rows=count)
    finally:  # after an interrupt, too, the next call may overwrite the buffers
        stream.synchronize()
    results[...] = outputs.host["values"][0, :count].reshape(results.shape)
