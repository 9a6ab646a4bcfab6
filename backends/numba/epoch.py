"""Compiled epochs: prepare data and buffers, and run the steps of a chunk on several threads."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.compilation import needed_kernels
from backends.numba.csr import MAX_SPARSE_DENSITY, Csr, looks_sparse, to_csr
from backends.numba.helpers import compiling
from backends.numba.kernels import chunk, updates
from backends.numba.kernels import epoch as kernels
from backends.numba.kernels.barrier import BARRIER_OPEN
from backends.numba.kernels.compilation import without_garbage_collector
from backends.numba.kernels.stages import Plan
from backends.numba.kernels.workspace import Images, Workspace
from backends.numba.layout import COMPILED, Layout, channels_last, lay_out, reads_input
from backends.numba.linkage import link_training, training_kernels, unlinked_plan
from backends.numba.memory import (
    aligned_zeros,
    forward_buffers,
    read_only,
    thread_addresses,
    thread_rows,
    whole_lines,
)
from backends.order import ROUNDS, Order, OrderPart
from backends.program import ChunkResults, CompiledEpoch, Steps, TrainingProgram

Array = NDArray[Any]

# Functions that Python calls in a chunk.
_ENTRIES = (chunk.copy_blocks, chunk.shuffled_rows, kernels.run_steps)
_EXAMPLES = 256  # images that show whether most pixels are 0


@dataclass(frozen=True)
class Data:
    """A data set that is prepared for the kernels.

    Attributes:
        program: the program.
        layout: layout of the program, which depends on whether the images are sparse.
        plan: the program in the form that the kernels read.
        arrays: images and labels, in the form that the kernels read.
        parameters: buffers of the parameters and of the optimizer's state.
        counter: counter of the barrier.
        workspaces: buffers by number of threads and batch size, with their addresses.
        results: buffers of results by number of threads.
    """

    program: TrainingProgram
    layout: Layout
    plan: Plan
    arrays: kernels.TrainingData
    parameters: updates.Parameters
    counter: NDArray[np.int64]
    workspaces: dict[tuple[int, int], tuple[Workspace, Array]] = field(default_factory=dict)
    results: dict[int, kernels.Results] = field(default_factory=dict)


class NumbaEpoch(CompiledEpoch):
    """A training program that runs on threads of this processor.

    Args:
        program: network, loss and optimizer.
        threads: returns the number of threads for a batch size.
        executor: returns an executor with at least `threads() - 1` workers.
        lock: held while a chunk runs. Two chunks on the same workers could wait at their barriers
            for each other forever.
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
        self._compiled: set[tuple[Any, ...]] = set()  # types of data
        COMPILED.check(program)
        rule = program.update
        settings = {name: float(rule.settings.get(name, 0)) for name in updates.Rule._fields[1:]}
        is_linear = rule.kind == "sgd" and not program.l2
        self._rule = updates.Rule(is_linear=is_linear, **settings)

    def remarks(self) -> Mapping[int, str]:
        """Return which stage takes sparse input."""
        if not reads_input(self._program):
            return {}
        return {
            0: f"sparse (CSR) input if fewer than {MAX_SPARSE_DENSITY:.0%} of pixels are nonzero"
        }

    takes_weights = True

    def load(self, pixels: Array, labels: Array, weights: Array | None = None) -> Data:
        """Convert the pixels to CSR format if most of them are 0, and compile the kernels."""
        with without_garbage_collector():
            return self._load(pixels, labels, weights)

    def _load(self, pixels: Array, labels: Array, weights: Array | None) -> Data:
        """Do the same as `load`."""
        program = self._program
        pixels = read_only(channels_last(program, pixels))
        labels = _small(labels) if labels.ndim == 1 else read_only(labels)
        weights = None if weights is None else read_only(weights)
        kinds = pixels.dtype, labels.dtype, labels.ndim, weights is None
        if kinds not in self._compiled:
            self._compile(pixels, labels, weights)
            self._compiled.add(kinds)
        sparse = self._to_csr(pixels)
        layout = lay_out(program, is_sparse=sparse is not None)
        return self._link(self._arrays(layout, pixels, sparse, labels, weights), layout)

    def _to_csr(self, pixels: Array) -> Csr | None:
        """Return images in CSR format if the first stage reads it and most pixels are 0."""
        if not reads_input(self._program):
            return None
        return to_csr(pixels, threads=self._threads(len(pixels)), executor=self._executor)

    def _arrays(
        self,
        layout: Layout,
        pixels: Array,
        sparse: Csr | None,
        labels: Array,
        weights: Array | None,
    ) -> kernels.TrainingData:
        """Return a data set in the form that the kernels read."""
        program = self._program
        if reads_input(program) and sparse is None:
            pixels = _whole_vectors(pixels, int(layout.stages[0]["x_size"]))
        csr = sparse or _no_sparse_images(pixels.dtype)
        images = Images(
            pixels=pixels if sparse is None else pixels[:0],
            indptr=csr.indptr,
            indices=csr.indices,
            data=csr.data,
            groups=len(csr.edges) - 1,
            scale=1 / 255 if pixels.dtype == np.uint8 else 1.0,
            shift=program.pixel_shift,
        )
        return kernels.TrainingData(images, labels, weights, csr.edges)

    def share(self, data: Data) -> Data:
        """Return the images of `data` with buffers of their own."""
        own, other = self._program, data.program
        is_same = own.update.kind == other.update.kind and replace(other, update=own.update) == own
        # The plan depends on the kind of the optimizer, but not on its settings.
        if is_same:
            return self._bind(data.arrays, data.layout, data.plan)
        return self._link(data.arrays, lay_out(own, is_sparse=data.arrays.images.groups > 0))

    def _link(self, arrays: kernels.TrainingData, layout: Layout) -> Data:
        """Return a data set for this program, with new buffers; compile its stage kernels."""
        program, is_sparse = self._program, arrays.images.groups > 0
        needed = training_kernels(program, arrays, self._rule, is_sparse=is_sparse)
        return self._bind(arrays, layout, link_training(unlinked_plan(program, layout), needed))

    def _bind(self, arrays: kernels.TrainingData, layout: Layout, plan: Plan) -> Data:
        """Return a data set with new buffers for a plan, whose kernels are compiled."""
        program = self._program
        states = len(program.update.state_names)
        return Data(
            program=program,
            layout=layout,
            plan=plan,
            arrays=arrays,
            parameters=updates.Parameters(
                aligned_zeros((layout.packed_size,), program.dtype),
                aligned_zeros((states, layout.packed_size), program.dtype),
            ),
            counter=aligned_zeros((whole_lines(1, np.int64),), np.int64),
        )

    def run(
        self, data: Data, steps: Steps, weights: Array, state: Mapping[str, Array]
    ) -> ChunkResults:
        """Run the steps of a chunk; see `CompiledEpoch.run`."""
        threads, count = self._threads(steps.batch_size), len(steps.bounds)
        vectors = [weights, *(state[name] for name in self._program.update.state_names)]
        packed = [data.parameters.packed, *data.parameters.state]
        layout = data.layout
        with self._lock:
            results = _results(data, threads, count)
            workspace, addresses = self._workspace(data, threads, steps.batch_size)
            for vector, buffer in zip(vectors, packed, strict=True):
                chunk.copy_blocks(layout.packing, vector, buffer)
            arguments = (
                tuple(data.plan),
                tuple(self._rule),
                tuple(data.parameters),
                (tuple(data.arrays.images), *data.arrays[1:]),
                (_rows(steps.parts), steps.bounds, steps.rates, steps.before),
                addresses,
                workspace.parameters,
                tuple(results),
            )
            with self._run_threads(threads, data.counter, *arguments):
                finite = [
                    chunk.copy_blocks(layout.unpacking, buffer, vector)
                    for vector, buffer in zip(vectors, packed, strict=True)
                ]
                losses = results.losses[:, :count].sum(axis=0) / steps.images
                correct = results.correct[:, :count].sum(axis=0)
        return ChunkResults(losses, correct, bool(np.isfinite(losses).all() and finite[0]))

    @contextmanager
    def _run_threads(
        self, threads: int, counter: NDArray[np.int64], *arguments: Any
    ) -> Iterator[None]:
        """Call `run_steps` on each thread; all results are complete before the block begins.

        The other threads wake up to return from their call, which takes as long as a short chunk.
        This happens while the block runs, and the context ends after it.

        Args:
            threads: number of threads, one of which is the calling thread.
            counter: counter of the barrier.
            arguments: arguments of `run_steps` after the thread and the counter.
        """
        counter[0] = 0
        if threads == 1:
            kernels.run_steps(0, counter, *arguments)
            yield
            return

        def run(thread: int) -> None:
            try:
                kernels.run_steps(thread, counter, *arguments)
            finally:
                # After an error, this thread reaches no further barrier, and the others must not
                # wait for it. Without an error, this changes nothing: all barriers are passed.
                counter[0] = BARRIER_OPEN

        others: list[Future[None]] = []
        try:
            others.extend(self._executor().submit(run, thread) for thread in range(1, threads))
            run(0)  # passes the last barrier, so the other threads have done their work
            yield
        finally:  # a KeyboardInterrupt can occur before `run` begins in this thread
            counter[0] = BARRIER_OPEN
            wait(others)
        for other in others:
            other.result()

    def _compile(self, pixels: Array, labels: Array, weights: Array | None) -> None:
        """Compile the kernels for data of some types, or load them from the cache.

        Helpers compile stage kernels, while this process compiles the functions that Python calls:
        it runs a chunk without steps.
        """
        program, some = self._program, pixels[:_EXAMPLES]
        is_sparse = reads_input(program) and looks_sparse(some)
        layout = lay_out(program, is_sparse=False)
        arrays = self._arrays(layout, some, None, labels, weights)
        needed = training_kernels(program, arrays, self._rule, is_sparse=is_sparse)
        needed_kernels.extend(entry.__name__ for entry in _ENTRIES)
        data = self._bind(arrays, layout, unlinked_plan(program, layout))
        zeros = np.zeros(program.parameters, program.dtype)
        order = Order(len(labels), "shuffle", (0,) * ROUNDS)
        no_steps = Steps(
            parts=(OrderPart(order, 0, 0),),
            bounds=np.zeros((0, 2), np.int64),
            rates=np.zeros(0),
            before=0,
            batch_size=1,
        )
        with compiling(needed.in_use()):
            self._to_csr(some)
            self.run(data, no_steps, zeros, dict.fromkeys(program.update.state_names, zeros))

    def _workspace(self, data: Data, threads: int, batch_size: int) -> tuple[Workspace, Array]:
        """Return the buffers for a number of threads and a batch size, and their addresses."""
        key = threads, batch_size
        if key in data.workspaces:
            return data.workspaces[key]
        data.workspaces.clear()  # buffers of several batch sizes would take too much memory
        dtype, sizes = self._program.dtype, data.layout.sizes
        buffers = forward_buffers(sizes, threads, math.ceil(batch_size / threads), dtype)
        outputs = int(data.layout.stages[0]["y_size"]) if data.plan.update_inputs else 0
        deltas_row = whole_lines(outputs, dtype)
        workspace = Workspace(
            **buffers,
            gradients=thread_rows(threads, buffers["capacity"] * sizes["outputs"], dtype),
            conv=thread_rows(threads, sizes["conv"], dtype),
            filters=thread_rows(threads, sizes["filters"], dtype),
            dfilters=thread_rows(threads, sizes["dfilters"], dtype),
            places=thread_rows(threads, sizes["places"], np.uint64),
            dpadded=thread_rows(threads, sizes["dpadded"], dtype),
            parameters=thread_rows(threads, data.layout.packed_size, dtype),
            deltas=aligned_zeros((batch_size, deltas_row), dtype),
            deltas_row=deltas_row,
        )
        data.workspaces[key] = workspace, thread_addresses(workspace)
        return data.workspaces[key]


def _small(labels: NDArray[np.int64]) -> Array:
    """Return labels as smaller integers if possible, because images are read in random order.

    Most of the labels of MNIST as int64 would not be in the second-level cache.
    """
    fits = not len(labels) or labels.max() <= np.iinfo(np.uint16).max
    return read_only(labels.astype(np.uint16 if fits else np.int64))


def _whole_vectors(pixels: Array, size: int) -> Array:
    """Return images whose rows have `size` pixels; additional pixels are 0."""
    missing = size - pixels.shape[1]
    return read_only(np.pad(pixels, ((0, 0), (0, missing)))) if missing else pixels


def _rows(parts: Sequence[OrderPart]) -> NDArray[np.int64]:
    """Return the rows of all parts, concatenated; a kernel computes those of a shuffle."""
    counts = [end - begin for _, begin, end in parts]
    rows, buffers = np.empty(sum(counts), np.int64), np.empty((2, max(counts)), np.int64)
    first = 0
    for (order, begin, end), count in zip(parts, counts, strict=True):
        own = rows[first : first + count]
        if order.kind == "shuffle":
            order.check(begin, end)
            chunk.shuffled_rows(order.keys, order.bits, order.examples, begin, own, *buffers)
        else:
            own[:] = order.rows(begin, end)
        first += count
    return rows


def _results(data: Data, threads: int, steps: int) -> kernels.Results:
    """Return zeros for the results of some steps; the row of a thread may have unused elements."""
    known = data.results.get(threads)
    if known is None or known.losses.shape[1] < steps:
        shape = threads, whole_lines(steps, np.float64)
        known = kernels.Results(aligned_zeros(shape, np.float64), aligned_zeros(shape, np.int64))
        data.results[threads] = known
    known.losses[:, :steps] = 0  # kernels add to them
    known.correct[:, :steps] = 0
    return known


def _no_sparse_images(dtype: np.dtype[Any]) -> Csr:
    """Return arrays of the types that kernels read, without images and groups."""
    return Csr(
        np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint16), np.zeros(0, dtype)
    )
