"""Compiled predictions: prepare parameters and buffers, and divide images among threads."""

import math
from collections.abc import Callable
from concurrent.futures import Executor, Future
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.numba.kernels import inference as kernels
from backends.numba.layout import COMPILED, Layout, channels_last, lay_out
from backends.numba.linkage import link_inference
from backends.numba.memory import (
    aligned_zeros,
    forward_buffers,
    read_only,
    thread_rows,
    whole_lines,
)
from backends.numba.threads import wait_for_all
from backends.program import CompiledInference, InputRangeError, Program

Array = NDArray[Any]

# Images per tile. Small tiles let all threads end at about the same time. The results of a tile
# fill whole cache lines.
_IMAGES_PER_TILE = 16
# From this number of images on, copying the weights saves more time than it takes.
_MIN_IMAGES_TO_ALIGN = 2048
# Factor that scales pixels to 0…1, by kind of dtype: unsigned integers or floating-point numbers.
_SCALES = {"u": 1 / 255, "f": 1.0}


class NumbaInference(CompiledInference):
    """Compiled predictions on one or more threads of the CPU.

    Args:
        program: network and loss.
        threads: returns the number of threads to use for a number of images.
        executor: returns an executor with at least one worker for each thread except the calling
            one.
    """

    def __init__(
        self, program: Program, *, threads: Callable[[int], int], executor: Callable[[], Executor]
    ) -> None:
        COMPILED.check(program)
        self._kernel = kernels.predict
        self._threads = threads
        self._executor = executor
        self._program = program
        self._classes = program.stages[-1].output_shape[0]
        self._layout = lay_out(program, is_sparse=False)
        # Convolutions read packed parameters; linear layers read the network's vector.
        self._source, self._target = _use_network_vector(program, self._layout)
        self._packs_filters = len(self._source) > 0
        self._filters = aligned_zeros((self._layout.packed_size,), program.dtype)
        end = max(program.parameters, _end_of_reads(program, self._layout))
        self._padding = end - program.parameters
        self._aligned = _AlignedRows(program, self._layout, whole_lines(end, program.dtype))
        self._networks: dict[tuple[np.dtype[Any], bool], tuple[Any, ...]] = {}
        self._buffers: dict[int, list[Array]] = {}
        self._memory: list[dict[str, Array]] = []  # the arrays to which the buffers belong
        self._lock = Lock()  # the filters and buffers are shared by all calls

    def predict(self, weights: Array, pixels: NDArray[Any], *, probabilities: bool) -> NDArray[Any]:
        """Predict on several threads if there are many images; see `CompiledInference.predict`."""
        count = len(pixels)
        threads = 1 if count <= _IMAGES_PER_TILE else self._threads(count)
        # Only threads that write next to each other require aligned results.
        allocate = np.empty if threads == 1 else aligned_zeros
        results = allocate((count, self._classes), self._filters.dtype)
        is_aligned = count >= _MIN_IMAGES_TO_ALIGN and self._program.stages[0].kind == "linear"
        with self._lock:
            if is_aligned:
                weights = self._aligned.copy(weights)
            elif self._padding:
                weights = np.append(weights, np.zeros(self._padding, weights.dtype))
            if self._packs_filters:
                kernels.pack(weights, self._source, self._target, self._filters)
            buffers = self._buffers_for(threads)
            arguments = (
                self._network_for(pixels.dtype, is_aligned),
                weights,
                read_only(channels_last(self._program, pixels)),
                _SCALES[pixels.dtype.kind],
                probabilities,
                results,
            )
            counters = np.zeros(kernels.COUNTERS, np.int64)
            # One thread needs no executor: submitting a task takes longer than predicting an image.
            if threads == 1:
                in_range = self._kernel(counters, buffers[0], *arguments)
            else:
                in_range = self._run_threads(counters, buffers, arguments)
        if not in_range:
            raise InputRangeError
        return results

    def _network_for(self, pixels: np.dtype[Any], is_aligned: bool) -> tuple[Any, ...]:
        """Return the fields of `kernels.Network`; they are cached.

        Args:
            pixels: dtype of the pixels.
            is_aligned: whether the weights of the first stage have aligned rows.
        """
        key = pixels, is_aligned
        if key not in self._networks:
            lowest, highest = 0.0, 1.0
            if pixels.kind == "u":
                highest = 255.0
            elif not self._program.takes_pixels:  # all finite numbers
                highest = float(np.finfo(pixels).max)
                lowest = -highest
            read = link_inference(self._program, self._layout, pixels)
            stages = self._layout.stages
            self._networks[key] = tuple(
                kernels.Network(
                    stages=self._aligned.stages(stages) if is_aligned else stages,
                    offsets=self._layout.offsets,
                    read=read,
                    softmax=self._program.loss == "softmax_cross_entropy",
                    shift=self._program.pixel_shift,
                    lowest=lowest,
                    highest=highest,
                    filters=self._filters,
                )
            )
        return self._networks[key]

    def _run_threads(
        self, counters: Array, buffers: list[Array], arguments: tuple[Any, ...]
    ) -> bool:
        """Predict on several threads; return whether all pixels are in range."""
        others: list[Future[bool]] = []
        try:
            others.extend(
                self._executor().submit(self._kernel, counters, of_thread, *arguments)
                for of_thread in buffers[1:]
            )
            in_range: bool = self._kernel(counters, buffers[0], *arguments)
        except BaseException:  # a KeyboardInterrupt can occur before the kernel has waited for them
            for other in others:
                other.cancel()
            wait_for_all(others)
            raise
        for other in others:  # one that has not started would find no images
            other.cancel()
        return in_range

    def _buffers_for(self, threads: int) -> list[Array]:
        """Return the buffers of each thread, of dtype `kernels.BUFFERS`; they are kept."""
        if threads not in self._buffers:
            sizes, dtype = self._layout.sizes, self._filters.dtype
            length = max(math.prod(stage.input_shape) for stage in self._program.stages)
            memory = forward_buffers(sizes, threads, _IMAGES_PER_TILE, dtype)
            capacity = memory.pop("capacity")
            memory["rows"] = thread_rows(threads, capacity, np.int64)
            memory["indices"] = thread_rows(threads, length, np.uint32)
            memory["data"] = thread_rows(threads, length, dtype)
            memory["pixels"] = thread_rows(threads, length, dtype)
            self._memory.append(memory)
            table = np.zeros(threads, kernels.BUFFERS)
            table["capacity"], table["length"] = capacity, memory["data"].shape[1]
            for name, array in memory.items():
                table[name] = array.ctypes.data + np.arange(threads) * array.strides[0]
            self._buffers[threads] = np.split(table, threads)
        return self._buffers[threads]


def _use_network_vector(
    program: Program, layout: Layout
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Change the layout so that linear layers read the network's parameter vector.

    Returns:
        Positions of the other parameters, those of convolutions, in the network's vector and in the
        packed vector.
    """
    is_packed = np.ones(program.parameters, bool)
    for stage, row in zip(program.stages, layout.stages, strict=True):
        if stage.kind == "linear" and stage.weight is not None:
            size = math.prod(stage.input_shape) * stage.output_shape[0]
            row["weight"], row["weight_row"] = stage.weight, stage.output_shape[0]
            is_packed[stage.weight : stage.weight + size] = False
            if stage.bias is not None:
                row["bias"] = stage.bias
                is_packed[stage.bias : stage.bias + stage.output_shape[0]] = False
    return np.flatnonzero(is_packed), layout.positions[is_packed]


def _end_of_reads(program: Program, layout: Layout) -> int:
    """Return the position in the network's vector at which the reads of linear layers end.

    Rows of weight matrices are read in whole vectors, so it may exceed the number of parameters.
    """
    ends = [
        int(row["weight"])
        + (math.prod(stage.input_shape) - 1) * stage.output_shape[0]
        + int(row["out_lanes"])
        for stage, row in zip(program.stages, layout.stages, strict=True)
        if stage.kind == "linear"
    ]
    return max(ends, default=0)


class _AlignedRows:
    """Copies the weights of a linear first stage so that each row begins at a cache line.

    Loads of vectors that cross cache lines take twice as long. The copied rows follow a copy of all
    parameters in one vector.

    Args:
        program: the network.
        layout: its layout, whose linear layers read the network's vector.
        begin: position of the copied rows in the vector.
    """

    def __init__(self, program: Program, layout: Layout, begin: int) -> None:
        first = program.stages[0]
        self._inputs, self._outputs = math.prod(first.input_shape), first.output_shape[0]
        self._weight = int(layout.stages[0]["weight"])
        self._row = whole_lines(int(layout.stages[0]["y_size"]), program.dtype)
        self._begin = begin
        self._vector = np.zeros(0, program.dtype)

    def stages(self, table: NDArray[Any]) -> NDArray[Any]:
        """Return a table of stages that refers to the copied weights."""
        table = table.copy()
        table[0]["weight"], table[0]["weight_row"] = self._begin, self._row
        return table

    def copy(self, weights: Array) -> Array:
        """Return the parameters and the copied weights."""
        if not len(self._vector):
            size = self._begin + self._inputs * self._row
            self._vector = aligned_zeros((size,), weights.dtype)
        shape = self._inputs, self._outputs
        rows = weights[self._weight : self._weight + math.prod(shape)].reshape(shape)
        self._vector[: len(weights)] = weights
        self._vector[self._begin :].reshape(self._inputs, -1)[:, : self._outputs] = rows
        return self._vector
