"""Compiled predictions on the CPU."""

import math
from collections.abc import Callable
from concurrent.futures import Executor
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.numba.kernels import inference as kernels
from backends.numba.kernels import losses, stages
from backends.numba.kernels.vectors import CACHE_LINE
from backends.numba.layout import Layout, lay_out
from backends.numba.memory import (
    MOST_IMAGES_A_BLOCK,
    block_capacity,
    read_only,
    rooms,
    zeros,
)
from backends.program import CompiledInference, PixelRangeError, Program, require_kernels

Array = NDArray[Any]

# What pixels of a kind of dtype are multiplied by: bytes 0…255, or numbers 0…1.
_SCALES = {"u": 1 / 255, "f": 1.0}


class NumbaInference(CompiledInference):
    """A program that predicts on threads of this processor.

    Args:
        program: what to run.
        threads: returns how many share so many images.
        executor: returns an executor with at least `threads() - 1` workers.
    """

    def __init__(
        self, program: Program, *, threads: Callable[[int], int], executor: Callable[[], Executor]
    ) -> None:
        require_kernels(program, activations=stages.ACTIVATIONS, losses=losses.LOSSES)
        self._pack, self._kernel = kernels.pack, kernels.predict
        self._threads = threads
        self._executor = executor
        self._program = program
        self._classes = program.stages[-1].output_shape[0]
        self._layout = lay_out(program, is_sparse=False)
        # Convolutions read packed parameters, linear layers those of the network.
        self._unpacked, self._places = _keep_linear(program, self._layout)
        self._filters = zeros((self._layout.packed_size,), program.dtype)
        self._has_filters = len(self._places) > 0
        self._missing = _reach(program, self._layout) - program.parameters
        self._constants = (
            *(self._layout.plan.stages, self._layout.plan.offsets, self._filters),
            *(program.pixel_shift, losses.LOSSES.index(program.loss)),
        )
        self._rows = np.arange(1)
        self._rooms: dict[int, Any] = {}
        self._lock = Lock()  # filters and rooms are there once

    def predict(self, weights: Array, pixels: NDArray[Any], *, probabilities: bool) -> NDArray[Any]:
        """Predict, many images on several threads."""
        count = len(pixels)
        threads = self._threads(count)
        make = np.empty if threads == 1 else zeros
        results = make((count, self._classes), self._filters.dtype)
        if self._missing > 0:
            weights = np.append(weights, np.zeros(self._missing, weights.dtype))
        with self._lock:
            if self._has_filters:
                self._pack(weights, self._unpacked, self._places, self._filters)
            if count > len(self._rows):
                self._rows = np.arange(count)
            arguments = (
                *(*self._constants, self._rows, *self._rooms_for(threads)),
                *(weights, read_only(pixels), _SCALES[pixels.dtype.kind]),
                *(probabilities, results),
            )
            # A single image takes less time than it takes Python to share it out.
            if threads == 1:
                in_range = self._kernel(0, 0, count, *arguments)
            else:
                in_range = self._share_out(threads, count, arguments)
        if not in_range:
            raise PixelRangeError
        return results

    def _share_out(self, threads: int, count: int, arguments: tuple[Any, ...]) -> bool:
        """Give each thread some of the images; return whether the pixels of all are in range."""
        # Shares of the results begin at whole cache lines.
        results = arguments[-1]
        unit = CACHE_LINE // math.gcd(CACHE_LINE, results.strides[0])
        bounds = [count * thread // threads // unit * unit for thread in range(threads)] + [count]
        others = [
            self._executor().submit(self._kernel, thread, *share, *arguments)
            for thread, share in enumerate(pairwise(bounds[1:]), start=1)
        ]
        try:
            in_range: bool = self._kernel(0, 0, bounds[1], *arguments)
        finally:  # nobody may change the rooms before all are done
            in_range_elsewhere = [other.result() for other in others]
        return in_range and all(in_range_elsewhere)

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
