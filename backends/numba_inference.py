"""Compiled predictions on the CPU."""

import importlib
import math
from collections.abc import Callable
from concurrent.futures import Executor
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.numba_layout import Layout, lay_out
from backends.numba_memory import MOST_IMAGES_A_BLOCK, block_capacity, rooms, zeros
from backends.program import CompiledInference, PixelRangeError, Program

Array = NDArray[Any]


class NumbaInference(CompiledInference):
    """A program that predicts on threads of this processor.

    Args:
        program: what to run.
        threads: returns how many share so many images.
        pool: returns the helpers of the calling thread, at least one less than `threads` returns.
    """

    def __init__(
        self, program: Program, *, threads: Callable[[int], int], pool: Callable[[], Executor]
    ) -> None:
        losses = importlib.import_module("backends.numba_kernels.losses")
        self._kernel = importlib.import_module("backends.numba_kernels.inference").predict
        self._threads = threads
        self._pool = pool
        self._program = program
        self._loss = getattr(losses, program.loss.upper())
        self._classes = program.stages[-1].output_shape[0]
        self._layout = lay_out(program, is_sparse=False)
        # Convolutions read packed parameters, linear layers those of the network.
        self._unpacked, self._places = _keep_linear(program, self._layout)
        self._filters = zeros((self._layout.packed_size,), program.dtype)
        self._missing = _reach(program, self._layout) - program.parameters
        self._rows = np.arange(1)
        self._rooms: dict[int, Any] = {}
        self._lock = Lock()  # filters and rooms are there once

    def predict(self, weights: Array, pixels: NDArray[Any], *, probabilities: bool) -> NDArray[Any]:
        """Predict, many images on several threads."""
        count = len(pixels)
        results = np.empty((count, self._classes), self._filters.dtype)
        threads = self._threads(count)
        if self._missing > 0:
            weights = np.append(weights, np.zeros(self._missing, weights.dtype))
        with self._lock:
            if len(self._unpacked):
                self._filters[self._places] = weights[self._unpacked]
            if count > len(self._rows):
                self._rows = np.arange(count)
            room = self._rooms_for(threads)
            bounds = [count * thread // threads for thread in range(threads + 1)]
            shared = room, weights, pixels, probabilities, results
            others = [
                self._pool().submit(self._part, thread, share, *shared)
                for thread, share in enumerate(pairwise(bounds[1:]), start=1)
            ]
            try:
                in_range = self._part(0, (0, bounds[1]), *shared)
            finally:  # nobody may change the rooms before all are done
                in_range_elsewhere = [other.result() for other in others]
        in_range = in_range and all(in_range_elsewhere)
        if not in_range:
            raise PixelRangeError
        return results

    def _part(
        self,
        thread: int,
        bounds: tuple[int, int],
        room: Any,
        weights: Array,
        pixels: Array,
        probabilities: bool,
        results: Array,
    ) -> bool:
        """Predict the images of one thread; return whether their pixels are in range."""
        plan = self._layout.plan
        in_range: bool = self._kernel(
            plan.stages,
            plan.offsets,
            weights,
            self._filters,
            pixels,
            1 / 255 if pixels.dtype == np.uint8 else 1.0,
            self._program.pixel_shift,
            self._rows,
            *bounds,
            thread,
            *room,
            self._loss,
            probabilities,
            results,
        )
        return in_range

    def _rooms_for(self, threads: int) -> Any:
        """Return how many images make a block, and what threads write to."""
        if threads not in self._rooms:
            sizes, dtype = self._layout.sizes, self._filters.dtype
            capacity = block_capacity(sizes, dtype, MOST_IMAGES_A_BLOCK)
            room = rooms(threads, dtype)
            length = max(math.prod(stage.input_shape) for stage in self._program.stages)
            self._rooms[threads] = (
                capacity,
                room(capacity * sizes["outputs"]),
                room(capacity * sizes["padded"]),
                room(capacity * sizes["masks"], np.uint8),
                room(capacity * sizes["wide_masks"], np.int64),
                room(sizes["conv"]),
                room(sizes["start"]),
                room(length, np.int64),
                room(length),
            )
        return self._rooms[threads]


def _keep_linear(program: Program, layout: Layout) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Let linear layers read the network's own parameters.

    Returns:
        Which of these are packed all the same, and where.
    """
    unpacked = np.ones(program.parameters, bool)
    for stage, row in zip(program.stages, layout.plan.stages, strict=True):
        if stage.kind == "linear" and stage.weight is not None:
            size = math.prod(stage.input_shape) * stage.output_shape[0]
            row["weight"] = stage.weight
            unpacked[stage.weight : stage.weight + size] = False
            if stage.bias is not None:
                row["bias"] = stage.bias
                unpacked[stage.bias : stage.bias + stage.output_shape[0]] = False
    return np.flatnonzero(unpacked), layout.positions[unpacked]


def _reach(program: Program, layout: Layout) -> int:
    """Return where what linear layers read ends, in the network's parameters or behind them."""
    ends = [
        int(row["weight"])
        + (math.prod(stage.input_shape) - 1) * stage.output_shape[0]
        + int(row["out_lanes"])
        for stage, row in zip(program.stages, layout.plan.stages, strict=True)
        if stage.kind == "linear"
    ]
    return max(ends, default=0)
