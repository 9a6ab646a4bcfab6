"""Compiled epochs on the CPU: gives each thread its part of some steps, and waits for all."""

import importlib
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from backends.numba_layout import Layout, lay_out
from backends.program import CompiledEpoch, Program, Steps

Array = NDArray[Any]

# Above this part of pixels that are not 0, the product with all of them is faster.
SPARSE_BELOW = 0.35
MOST_COLUMNS = 1 << 16  # that the type of the lists holds
# A thread with fewer images than this a step spends more on meeting the others than it helps.
FEWEST_IMAGES_A_THREAD = 16
# What a block of images leaves behind should fit the cache of a core.
BLOCK_BYTES = 1 << 20
FEWEST_IMAGES_A_BLOCK, MOST_IMAGES_A_BLOCK = 8, 256
# Numbers in a cache line and more: rows of different threads share none.
APART = 32
ALL_ARE_HERE = 1 << 62  # more arrivals than any meeting waits for


@dataclass(frozen=True)
class Data:
    """A data set, and what threads need to work on it.

    Attributes:
        layout: of the program, which depends on how many pixels are 0.
        images: the pixels, as `backends.numba_kernels.epoch` takes them.
        labels: class indices (N,).
        columns_below: how many pixels that are not 0 lie in each column or before it; empty where
            the first stage is not sparse.
        workspaces: what was made for a number of threads and the largest batch.
    """

    layout: Layout
    images: Any
    labels: NDArray[np.int64]
    columns_below: NDArray[np.int64]
    workspaces: dict[tuple[int, int], Any] = field(default_factory=dict)


class NumbaEpoch(CompiledEpoch):
    """A program that threads of this processor run side by side.

    Args:
        program: what to run.
        threads: the most that may be used.
        pool: returns the helpers of the calling thread, at least one less than `threads`.
        lock: keeps others from the helpers: epochs that share them out would wait for each other.
    """

    def __init__(
        self, program: Program, *, threads: int, pool: Callable[[], Executor], lock: Lock
    ) -> None:
        self._program = program
        self._threads = threads
        self._pool = pool
        self._lock = lock
        self._epoch = importlib.import_module("backends.numba_kernels.epoch")
        losses = importlib.import_module("backends.numba_kernels.losses")
        updates = importlib.import_module("backends.numba_kernels.updates")
        self._loss = getattr(losses, program.loss.upper())
        rule = program.update
        self._rule = getattr(updates, rule.kind.upper())
        self._settings = updates.Settings(
            **{name: float(rule.settings.get(name, 0)) for name in updates.Settings._fields}
        )
        self._blas = threadpoolctl.ThreadpoolController().select(user_api="blas")

    def load(self, pixels: Array, labels: NDArray[np.int64]) -> Data:
        """Keep the pixels as they are, or as lists of those that are not 0 where most are."""
        program = self._program
        scale = 1 / 255 if pixels.dtype == np.uint8 else 1.0
        starts, columns, values = _no_lists(pixels)
        below = np.zeros(0, np.int64)
        is_sparse = self._profits_from_lists(pixels)
        if is_sparse:
            starts, columns, values = _as_lists(pixels)
            below = np.cumsum(np.bincount(columns, minlength=pixels.shape[1]))
            pixels = pixels[:0]
        data = Data(
            layout=lay_out(program, is_sparse=is_sparse),
            images=self._epoch.Images(pixels, starts, columns, values, scale, program.pixel_shift),
            labels=labels,
            columns_below=below,
        )
        self._compile(data)
        return data

    def run(
        self, data: Data, steps: Steps, weights: Array, state: Mapping[str, Array]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Run the threads."""
        layout, dtype = data.layout, self._program.dtype
        batches = np.diff(steps.bounds)[:, 0]
        largest = int(batches.max(initial=1))
        threads = max(1, min(self._threads, largest // FEWEST_IMAGES_A_THREAD))
        key = threads, largest
        if key not in data.workspaces:
            data.workspaces.clear()  # batches of many sizes should not fill the memory
            data.workspaces[key] = self._workspaces(layout, threads, largest)
        workspaces = data.workspaces[key]
        packed = _pack(weights, layout, dtype)
        names = self._program.update.state_names
        packed_state = np.zeros((len(names), layout.packed_size), dtype)
        for name, row in zip(names, packed_state, strict=True):
            row[layout.positions] = state[name]
        first_outputs = int(layout.stages[0]["outputs"]) if len(data.columns_below) else 0
        deltas = np.zeros((largest, first_outputs), dtype)
        losses = np.zeros((threads, len(batches) + APART))
        correct = np.zeros((threads, len(batches) + APART), np.int64)
        counter = np.zeros(APART, np.int64)
        column_bounds = _share_columns(data.columns_below, threads)

        def part(thread: int) -> None:
            try:
                self._epoch.run_steps(
                    thread,
                    counter,
                    layout.stages,
                    self._loss,
                    self._rule,
                    self._settings,
                    packed,
                    packed_state,
                    data.images,
                    data.labels,
                    steps.rows,
                    steps.bounds,
                    steps.rates,
                    steps.before,
                    column_bounds,
                    deltas,
                    workspaces,
                    losses,
                    correct,
                )
            finally:
                # All have come to each meeting, or this one will never come: nobody is to wait.
                counter[0] = ALL_ARE_HERE

        # The threads are ours; those of BLAS would fight them: see NumbaBackend.computation.
        with self._lock, self._blas.limit(limits=1):
            others: list[Future[None]] = []
            try:
                others.extend(self._pool().submit(part, thread) for thread in range(1, threads))
                part(0)
            finally:  # a key may have been hit before thread 0 began
                counter[0] = ALL_ARE_HERE
                wait(others)
            for other in others:
                other.result()
        weights[:] = packed[layout.positions]
        for name, row in zip(names, packed_state, strict=True):
            state[name][:] = row[layout.positions]
        done = slice(0, len(batches))
        return losses[:, done].sum(axis=0) / batches, correct[:, done].sum(axis=0)

    def _compile(self, data: Data) -> None:
        """Run no steps, so that nobody waits for the compiler later."""
        program = self._program
        weights = np.zeros(program.parameters, program.dtype)
        state = dict.fromkeys(program.update.state_names, weights)
        no_steps = Steps(
            rows=np.zeros(0, np.int64),
            bounds=np.zeros((0, 2), np.int64),
            rates=np.zeros(0),
            before=0,
        )
        self.run(data, no_steps, weights, state)

    def _profits_from_lists(self, pixels: Array) -> bool:
        """Say whether the first stage should take lists: linear, and mostly of zeros."""
        program = self._program
        return (
            program.stages[0].kind == "linear"
            and len(program.stages) > 1  # logits are not filled up
            and program.pixel_shift == 0
            and pixels.shape[1] <= MOST_COLUMNS
            and int(np.count_nonzero(pixels)) < SPARSE_BELOW * pixels.size
        )

    def _workspaces(self, layout: Layout, threads: int, batch: int) -> Any:
        """Return room for each thread's block of images."""
        dtype = np.dtype(self._program.dtype)
        sizes = layout.sizes
        image_bytes = dtype.itemsize * (2 * sizes["outputs"] + sizes["padded"])
        fitting = max(FEWEST_IMAGES_A_BLOCK, BLOCK_BYTES // image_bytes)
        capacity = min(fitting, MOST_IMAGES_A_BLOCK, math.ceil(batch / threads))

        def room(size: int, kind: Any = dtype) -> Array:
            return np.zeros((threads, size + APART), kind)

        return self._epoch.Workspace(
            capacity=capacity,
            outputs=room(capacity * sizes["outputs"]),
            gradients=room(capacity * sizes["outputs"]),
            padded=room(capacity * sizes["padded"]),
            masks=room(capacity * sizes["masks"], np.uint8),
            wide_masks=room(capacity * sizes["wide_masks"], np.int64),
            conv=room(sizes["conv"]),
            start=room(sizes["start"]),
            filters=room(sizes["filters"]),
            dpadded=room(sizes["dpadded"]),
            product=room(sizes["product"]),
            parameters=room(layout.packed_size),
        )


def _pack(weights: Array, layout: Layout, dtype: str) -> Array:
    """Return the parameters in the order of the kernels."""
    packed = np.zeros(layout.packed_size, dtype)
    packed[layout.positions] = weights
    return packed


def _no_lists(pixels: Array) -> tuple[NDArray[np.int64], NDArray[np.uint16], Array]:
    return np.zeros(0, np.int64), np.zeros(0, np.uint16), np.zeros(0, pixels.dtype)


def _as_lists(pixels: Array) -> tuple[NDArray[np.int64], NDArray[np.uint16], Array]:
    """Return where each image's lists begin, and the columns and values that are not 0."""
    present = pixels != 0
    starts = np.concatenate(([0], np.cumsum(np.count_nonzero(present, axis=1))))
    columns = np.tile(np.arange(pixels.shape[1], dtype=np.uint16), (len(pixels), 1))[present]
    return starts, columns, pixels[present]


def _share_columns(below: NDArray[np.int64], threads: int) -> NDArray[np.int64]:
    """Return the columns at which the share of each thread begins, and where the last ends."""
    if not len(below):
        return np.zeros(threads + 1, np.int64)
    shares = below[-1] * np.arange(1, threads) / threads
    return np.array([0, *np.searchsorted(below, shares), len(below)], np.int64)
