"""Compiled epochs on the CPU: gives each thread its part of some steps, and waits for all."""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.numba.kernels import epoch as kernels
from backends.numba.kernels import lists, losses, stages, updates
from backends.numba.kernels.workspace import Images, Workspace
from backends.numba.layout import Layout, lay_out, takes_lists
from backends.numba.memory import block_capacity, read_only, rooms, whole_lines, zeros
from backends.order import Order
from backends.program import CompiledEpoch, Steps, TrainingProgram, require_kernels

Array = NDArray[Any]

# Above this part of pixels that are not 0, the product with all of them is faster.
SPARSE_BELOW = 0.35
_UNCUT = np.zeros(1, np.int64)
ALL_ARE_HERE = 1 << 62  # more arrivals than any meeting waits for


@dataclass(frozen=True)
class Data:
    """A data set, and what threads need to work on it.

    Attributes:
        layout: of the program, which depends on how many pixels are 0.
        images: the pixels, as `backends.numba.kernels.workspace` takes them.
        labels: class indices (N,).
        edges: columns at which the groups of the lists begin, and where the last ends; a single
            one where there are no lists.
        workspaces: what was made for a number of threads and a size of batch.
    """

    layout: Layout
    images: Any
    labels: NDArray[np.int64]
    edges: NDArray[np.int64]
    workspaces: dict[tuple[int, int], Any] = field(default_factory=dict)


class NumbaEpoch(CompiledEpoch):
    """A program that threads of this processor run side by side.

    Args:
        program: what to run.
        threads: returns how many share batches of so many images.
        executor: returns an executor with at least `threads() - 1` workers.
        lock: keeps others from the helpers: epochs that share them out would wait for each other.
    """

    def __init__(
        self,
        program: TrainingProgram,
        *,
        threads: Callable[[int], int],
        executor: Callable[[], Executor],
        lock: Lock,
    ) -> None:
        self._program = program
        self._threads = threads
        self._executor = executor
        self._lock = lock
        rule = program.update
        require_kernels(
            program,
            activations=stages.ACTIVATIONS,
            losses=losses.LOSSES,
            updates=updates.RULES,
        )
        self._loss = losses.LOSSES.index(program.loss)
        self._rule = updates.RULES.index(rule.kind)
        self._settings = updates.Settings(
            **{name: float(rule.settings.get(name, 0)) for name in updates.Settings._fields}
        )

    def remarks(self) -> Mapping[int, str]:
        """Say which stage takes lists of pixels."""
        if not takes_lists(self._program):
            return {}
        return {0: f"lists of the pixels that are not 0, where fewer than {SPARSE_BELOW:.0%} are"}

    def load(self, pixels: Array, labels: NDArray[np.int64]) -> Data:
        """Keep the pixels as they are, or as lists of those that are not 0 where most are."""
        program, pixels, labels = self._program, read_only(pixels), read_only(labels)
        counts, is_sparse = np.zeros(pixels.shape[1], np.int64), False
        if takes_lists(program):
            lists.count_by_column(pixels, counts)
            is_sparse = int(counts.sum()) < SPARSE_BELOW * pixels.size
        layout = lay_out(program, is_sparse=is_sparse)
        edges = _cut(counts, self._threads(len(pixels))) if is_sparse else _UNCUT
        starts, columns, values = self._as_lists(pixels, edges, int(counts.sum()))
        data = Data(
            layout=layout,
            images=Images(
                pixels=pixels[:0] if is_sparse else pixels,
                starts=starts,
                columns=columns,
                values=values,
                groups=len(edges) - 1,
                scale=1 / 255 if pixels.dtype == np.uint8 else 1.0,
                shift=program.pixel_shift,
            ),
            labels=labels,
            edges=edges,
        )
        self._compile(data)
        return data

    def run(
        self, data: Data, steps: Steps, weights: Array, state: Mapping[str, Array]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Run the threads."""
        layout, dtype = data.layout, self._program.dtype
        batches = np.diff(steps.bounds)[:, 0]
        threads = self._threads(steps.batch_size)
        key = threads, steps.batch_size
        if key not in data.workspaces:
            data.workspaces.clear()  # batches of many sizes should not fill the memory
            data.workspaces[key] = self._workspaces(data, *key)
        workspaces = data.workspaces[key]
        packed = _pack(weights, layout, dtype)
        names = self._program.update.state_names
        packed_state = zeros((len(names), layout.packed_size), dtype)
        for name, row in zip(names, packed_state, strict=True):
            row[layout.positions] = state[name]
        first_outputs = int(layout.plan.stages[0]["outputs"]) if data.images.groups else 0
        deltas = zeros((steps.batch_size, whole_lines(first_outputs, dtype)), dtype)
        loss_sums = zeros((threads, whole_lines(len(batches), np.float64)), np.float64)
        correct = zeros((threads, whole_lines(len(batches), np.int64)), np.int64)
        counter = zeros((whole_lines(1, np.int64),), np.int64)
        rows, bounds = steps.rows(), steps.bounds - steps.first

        def part(thread: int) -> None:
            try:
                kernels.run_steps(
                    thread,
                    counter,
                    layout.plan,
                    self._loss,
                    self._rule,
                    self._settings,
                    packed,
                    packed_state,
                    data.images,
                    data.labels,
                    rows,
                    bounds,
                    steps.rates,
                    steps.before,
                    data.edges,
                    deltas,
                    workspaces,
                    loss_sums,
                    correct,
                )
            finally:
                # All have come to each meeting, or this one will never come: nobody is to wait.
                counter[0] = ALL_ARE_HERE

        with self._lock:
            others: list[Future[None]] = []
            try:
                others.extend(self._executor().submit(part, thread) for thread in range(1, threads))
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
        return loss_sums[:, done].sum(axis=0) / batches, correct[:, done].sum(axis=0)

    def _compile(self, data: Data) -> None:
        """Run no steps, so that nobody waits for the compiler later."""
        program = self._program
        weights = np.zeros(program.parameters, program.dtype)
        state = dict.fromkeys(program.update.state_names, weights)
        no_steps = Steps(
            order=Order(len(data.labels), "full"),
            bounds=np.zeros((0, 2), np.int64),
            rates=np.zeros(0),
            before=0,
            batch_size=1,
        )
        self.run(data, no_steps, weights, state)

    def _as_lists(
        self, pixels: Array, edges: NDArray[np.int64], length: int
    ) -> tuple[NDArray[np.int64], NDArray[np.uint16], Array]:
        """Return where each group of each image begins, and the columns and values that are not 0.

        All are empty where `edges` make no group.

        Args:
            pixels: (N, pixels).
            edges: columns at which lists are cut.
            length: how many pixels are not 0.
        """
        if len(edges) < 2:
            return np.zeros(0, np.int64), np.zeros(0, np.uint16), np.zeros(0, pixels.dtype)
        starts = np.empty(len(pixels) * (len(edges) - 1) + 1, np.int64)
        columns, values = np.empty(length, np.uint16), np.empty(length, pixels.dtype)
        lists.write_lists(pixels, edges, starts, columns, values)
        return starts, columns, values

    def _workspaces(self, data: Data, threads: int, batch: int) -> Any:
        """Return room for each thread's block of images."""
        dtype, sizes = self._program.dtype, data.layout.sizes
        capacity = block_capacity(sizes, dtype, math.ceil(batch / threads))
        room = rooms(threads, dtype)
        return Workspace(
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
            parameters=room(data.layout.packed_size),
        )


def _pack(weights: Array, layout: Layout, dtype: str) -> Array:
    """Return the parameters in the order of the kernels."""
    packed = zeros((layout.packed_size,), dtype)
    packed[layout.positions] = weights
    return packed


def _cut(counts: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    """Return the columns at which lists are cut into groups, each as full as the others.

    They are even: two rows of weights are whole cache lines, one may be half a line more.

    Args:
        counts: how many pixels of each column are not 0.
        groups: how many there are to be.
    """
    below = np.cumsum(counts)
    shares = below[-1] * np.arange(1, groups) / groups
    return np.array([0, *(np.searchsorted(below, shares) // 2 * 2), len(below)], np.int64)
