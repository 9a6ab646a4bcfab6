"""Compiled epochs: prepare data and buffers, and run the steps of a chunk on several threads."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from threading import Lock
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.compilation import needed_kernels
from backends.numba.csr import MAX_SPARSE_DENSITY, Csr, looks_sparse, to_csr
from backends.numba.faster_way import FasterWay
from backends.numba.helpers import compiling
from backends.numba.kernels import chunk
from backends.numba.kernels import epoch as kernels
from backends.numba.kernels.barrier import BARRIER_OPEN
from backends.numba.kernels.compilation import without_garbage_collector
from backends.numba.kernels.vector_width import lanes_of
from backends.numba.kernels.workspace import Images
from backends.numba.layout import COMPILED, channels_last, lay_out, multiplications, reads_input
from backends.numba.linkage import link_training, training_kernels, unlinked_plan
from backends.numba.linked import Linked, eps_is_too_small, rule_of, smallest_eps
from backends.numba.memory import read_only
from backends.numba.threads import (
    MIN_IMAGES_PER_THREAD,
    MIN_MULTIPLICATIONS_OF_CHUNK,
    wait_for_all,
)
from backends.order import ROUNDS, Order, OrderPart
from backends.program import (
    ChunkResults,
    CompiledEpoch,
    NotCompiledError,
    Steps,
    TrainingProgram,
)

Array = NDArray[Any]

# Functions that Python calls in a chunk.
_ENTRIES = (chunk.copy_blocks, chunk.shuffled_rows, kernels.run_steps, chunk.sum_results)
_EXAMPLES = 256  # images that show whether most pixels are 0
_MAX_SMALL_LABEL = np.iinfo(np.uint16).max


class Data(NamedTuple):
    """A data set that is prepared for the kernels.

    Attributes:
        linked: the program and its buffers, for data sets of this kind.
        arrays: images and labels, in the form that the kernels read.
        fields: `arrays` as plain tuples.
    """

    linked: Linked
    arrays: kernels.TrainingData
    fields: tuple[Any, ...]


class NumbaEpoch(CompiledEpoch):
    """A training program that runs on threads of this processor.

    Args:
        program: network, loss and optimizer.
        threads: returns how many threads share a step or a conversion of this number of images.
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
        self._linked: dict[tuple[Any, ...], Linked] = {}  # by kind of data set
        COMPILED.check(program)
        if eps_is_too_small(program.update, program.dtype):
            smallest = smallest_eps(program.update, program.dtype)
            raise NotCompiledError(
                f"eps={program.update.settings['eps']:g} has no compiled form; "
                f"it must be at least {smallest:.1e}"
            )
        self._multiplications = multiplications(program)

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
        arrays = self._arrays(pixels, self._to_csr(pixels), labels, weights)
        return _data(self._linked_for(_kind(arrays), arrays), arrays)

    def _to_csr(self, pixels: Array) -> Csr | None:
        """Return images in CSR format if the first stage reads it and most pixels are 0."""
        if not reads_input(self._program):
            return None
        return to_csr(pixels, threads=self._threads(len(pixels)), executor=self._executor)

    def _arrays(
        self,
        pixels: Array,
        sparse: Csr | None,
        labels: Array,
        weights: Array | None,
    ) -> kernels.TrainingData:
        """Return a data set in the form that the kernels read."""
        program = self._program
        if reads_input(program) and sparse is None:
            pixels = _whole_vectors(pixels, program.dtype)
        csr = sparse or _no_sparse_images(pixels.dtype)
        images = Images(
            pixels=pixels if sparse is None else pixels[:0],
            indptr=csr.indptr,
            indices=csr.indices,
            data=csr.data,
            groups=len(csr.edges) - 1,
            edges=csr.edges,
            scale=1 / 255 if pixels.dtype == np.uint8 else 1.0,
            shift=program.pixel_shift,
        )
        return kernels.TrainingData(images, labels, weights)

    def share(self, data: Data) -> Data:
        """Return the images and labels of `data` with the buffers of this program."""
        linked, arrays = data.linked, data.arrays
        own, other = self._program, linked.program
        is_same = own.update.kind == other.update.kind and replace(other, update=own.update) == own
        key = _kind(arrays)
        # The plan depends on the kind of the optimizer, but not on its settings.
        if is_same and key not in self._linked:
            self._linked[key] = Linked(own, linked.layout, linked.plan)
        return _data(self._linked_for(key, arrays), arrays)

    def _linked_for(self, key: tuple[Any, ...], arrays: kernels.TrainingData) -> Linked:
        """Return the program for data sets of a kind, and keep it; compile its stage kernels."""
        program = self._program
        if key not in self._linked:
            is_sparse = arrays.images.groups > 0
            layout = lay_out(program, is_sparse=is_sparse)
            needed = training_kernels(
                program, layout, arrays, rule_of(program), is_sparse=is_sparse
            )
            plan = link_training(unlinked_plan(program, layout), needed)
            self._linked[key] = Linked(program, layout, plan)
        return self._linked[key]

    def run(
        self, data: Data, steps: Steps, weights: Array, state: Mapping[str, Array]
    ) -> ChunkResults:
        """Run the steps of a chunk; see `CompiledEpoch.run`."""
        linked, count = data.linked, len(steps.bounds)
        threads = self._threads(steps.batch_size)
        vectors = [weights, *(state[name] for name in self._program.update.state_names)]
        layout = linked.layout
        losses, correct = np.empty(count), np.empty(count, np.int64)
        with self._lock:
            program = linked.prepare(threads, steps.batch_size, count)
            for vector, packed in zip(vectors, linked.vectors, strict=True):
                chunk.copy_blocks(layout.packing, vector, packed)
            schedule = _rows(steps.parts), steps.bounds, steps.rates, steps.before
            arguments = linked.counter, linked.record, program, data.fields, schedule

            def finish() -> bool:
                for vector, packed in zip(vectors, linked.vectors, strict=True):
                    chunk.copy_blocks(layout.unpacking, packed, vector)
                sums = tuple(linked.results)
                finite: bool = chunk.sum_results(sums, steps.bounds, losses, correct, weights)
                return finite

            is_finite = False
            try:
                is_finite = self._run_faster(linked, steps, threads, finish, *arguments)
            finally:
                if not is_finite:  # NaN in unused lanes would spread to later chunks
                    linked.clear()
        return ChunkResults(losses, correct, is_finite)

    def _run_faster(
        self,
        linked: Linked,
        steps: Steps,
        threads: int,
        finish: Callable[[], bool],
        *arguments: Any,
    ) -> bool:
        """Run a chunk on one thread or on all, whichever is expected to be faster."""
        count, batch_size = len(steps.bounds), steps.batch_size
        if count * batch_size * self._multiplications < MIN_MULTIPLICATIONS_OF_CHUNK:
            return self._run_threads(1, threads, finish, *arguments)
        if threads == 1 or batch_size >= threads * MIN_IMAGES_PER_THREAD:
            return self._run_threads(threads, threads, finish, *arguments)
        faster = linked.faster.setdefault((threads, batch_size), FasterWay(threads))
        calls, begin = faster.choose(), perf_counter()
        is_finite = self._run_threads(calls, threads, finish, *arguments)
        faster.add(calls, (perf_counter() - begin) / count)
        return is_finite

    def _run_threads(
        self,
        calls: int,
        threads: int,
        finish: Callable[[], bool],
        counter: NDArray[np.int64],
        *arguments: Any,
    ) -> bool:
        """Call `run_steps`, then `finish`, and return the result of `finish`.

        The other threads wake up to return from their call, which takes as long as a short chunk.
        This happens while `finish` runs.

        Args:
            calls: number of calls: 1, or that of the threads, one of which is the calling thread.
            threads: number of threads among which each step is divided.
            finish: called when all results are complete.
            counter: counter of the barrier.
            arguments: arguments of `run_steps` after the thread and the counter.
        """
        counter[0] = 0
        if calls == 1:
            kernels.run_steps(0, threads, counter, *arguments)
            return finish()

        def run(thread: int) -> None:
            try:
                kernels.run_steps(thread, thread + 1, counter, *arguments)
            finally:
                # After an error, this thread reaches no further barrier, and the others must not
                # wait for it. Without an error, this changes nothing: all barriers are passed.
                counter[0] = BARRIER_OPEN

        others: list[Future[None]] = []
        try:
            others.extend(self._executor().submit(run, thread) for thread in range(1, threads))
            run(0)  # passes the last barrier, so the other threads have done their work
            result = finish()
        finally:  # a KeyboardInterrupt can occur before `run` begins in this thread
            counter[0] = BARRIER_OPEN
            wait_for_all(others)
        for other in others:
            other.result()
        return result

    def _compile(self, pixels: Array, labels: Array, weights: Array | None) -> None:
        """Compile the kernels for data of some types, or load them from the cache.

        Helpers compile stage kernels, while this process compiles the functions that Python calls:
        it runs a chunk without steps.
        """
        program, some = self._program, pixels[:_EXAMPLES]
        is_sparse = reads_input(program) and looks_sparse(some)
        layout = lay_out(program, is_sparse=False)
        arrays = self._arrays(some, None, labels, weights)
        needed = training_kernels(program, layout, arrays, rule_of(program), is_sparse=is_sparse)
        needed_kernels.extend(entry.__name__ for entry in _ENTRIES)
        linked = Linked(program, layout, unlinked_plan(program, layout))
        zeros = np.zeros(program.parameters, program.dtype)
        order = Order(len(labels), "shuffle", (0,) * ROUNDS)
        no_steps = Steps(
            parts=(OrderPart(order, 0, 0),),
            bounds=np.zeros((0, 2), np.int64),
            rates=np.zeros(0),
            before=0,
            batch_size=1,
        )
        states = dict.fromkeys(program.update.state_names, zeros)
        with compiling(needed.in_use()):
            self._to_csr(some)
            self.run(_data(linked, arrays), no_steps, zeros, states)


def _data(linked: Linked, arrays: kernels.TrainingData) -> Data:
    """Return a data set for a program."""
    return Data(linked, arrays, (tuple(arrays.images), *arrays[1:]))


def _kind(arrays: kernels.TrainingData) -> tuple[Any, ...]:
    """Return what decides which stage kernels train on a data set."""
    images, labels = arrays.images, arrays.labels
    is_sparse, is_weighted = images.groups > 0, arrays.weights is not None
    return images.pixels.dtype, labels.dtype, labels.ndim, is_weighted, is_sparse


def _small(labels: NDArray[np.int64]) -> Array:
    """Return labels as smaller integers if possible, because images are read in random order.

    Most of the labels of MNIST as int64 would not be in the second-level cache.
    """
    fits = not len(labels) or labels.max() <= _MAX_SMALL_LABEL
    return read_only(labels.astype(np.uint16 if fits else np.int64))


def _whole_vectors(pixels: Array, dtype: str) -> Array:
    """Return images whose rows are whole vectors of numbers; additional pixels are 0."""
    missing = -pixels.shape[1] % lanes_of(np.dtype(dtype).itemsize)
    return read_only(np.pad(pixels, ((0, 0), (0, missing)))) if missing else pixels


def _rows(parts: Sequence[OrderPart]) -> NDArray[np.int64]:
    """Return the rows of all parts, concatenated."""
    rows = [_rows_of(*part) for part in parts]
    return rows[0] if len(rows) == 1 else np.concatenate(rows)


def _rows_of(order: Order, begin: int, end: int) -> NDArray[np.int64]:
    """Return the rows at some positions of an order; a kernel computes those of a shuffle."""
    if order.kind != "shuffle":
        return order.rows(begin, end)
    order.check(begin, end)
    rows, *buffers = [np.empty(end - begin, np.int64) for _ in range(3)]
    chunk.shuffled_rows(order.keys, order.bits, order.examples, begin, rows, *buffers)
    return rows


def _no_sparse_images(dtype: np.dtype[Any]) -> Csr:
    """Return arrays of the types that kernels read, without images and groups."""
    return Csr(
        np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint16), np.zeros(0, dtype)
    )
