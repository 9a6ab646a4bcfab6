"""The compiled CPU backend: NumPy, with Numba kernels for single operations and whole epochs.

Numba is imported when the first kernel is needed, never before. Compiled code is cached on disk, so
only the first run on a machine waits for the compiler.
"""

import importlib
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.availability import Availability
from backends.base import DeviceInfo
from backends.numba.probe import probe
from backends.numpy.backend import NumpyBackend
from backends.operations.common import Ties, check_pooling, require_same_dtype, require_shape
from backends.operations.convolution import conv2d_shape
from backends.operations.pooling import pooled_shape
from backends.program import (
    CompiledEpoch,
    CompiledInference,
    NotCompiledError,
    Program,
    TrainingProgram,
)

REMEDY = "pip install --upgrade numba numpy (each Numba release supports a range of NumPy releases)"

CACHE_REMEDY = "set NUMBA_CACHE_DIR to a folder that can be written"

COMPILED_KINDS = frozenset({"conv2d", "max_pool2d", "avg_pool2d"})
# A thread with fewer of a step spends more on meeting the others than it helps.
FEWEST_IMAGES_A_THREAD = 16


class NumbaBackend(NumpyBackend):
    """NumPy arrays on the CPU; convolution, pooling and whole epochs are compiled by Numba."""

    name = "numba"

    def __init__(self) -> None:
        super().__init__()
        self._convolution = importlib.import_module("backends.numba.kernels.convolution")
        self._pooling = importlib.import_module("backends.numba.kernels.pooling")
        chunks = importlib.import_module("backends.numba.kernels.chunks")
        self._images_per_chunk: int = chunks.IMAGES_PER_CHUNK
        self._most_threads: int = importlib.import_module("numba").config.NUMBA_NUM_THREADS
        self._pool_of = 0, 0  # process, and number of threads
        self._epoch_lock = threading.Lock()

    @property
    def most_threads(self) -> int:
        """How many threads share a large batch."""
        return self._most_threads

    @classmethod
    def availability(cls) -> Availability:
        """Import Numba, and run a kernel, compiled now or taken from the cache."""
        if importlib.util.find_spec("numba") is None:
            return Availability(ok=False, reason="Numba is not installed", remedy=REMEDY)
        try:
            numba = importlib.import_module("numba")
        except Exception as error:  # ImportError, but also what a broken llvmlite raises
            return Availability(
                ok=False, reason=f"Numba cannot be imported ({_one_line(error)})", remedy=REMEDY
            )
        try:
            probe()
        except Exception as error:  # no cache, a full disk, a compiler that is broken
            no_cache = isinstance(error, OSError) or "cannot cache" in str(error)
            return Availability(
                ok=False,
                reason=f"a Numba kernel cannot be run ({_one_line(error)})",
                remedy=CACHE_REMEDY if no_cache else REMEDY,
            )
        return Availability(ok=True, reason=f"Numba {numba.__version__}")

    @contextmanager
    def computation(self, kinds: frozenset[str]) -> Iterator[None]:
        """Bound the threads of BLAS while kernels of ours use the cores.

        The two pools do not know of each other. An idle thread of OpenBLAS waits by spinning, and
        takes its core from a kernel: a step of a CNN takes twice as long. Without convolution and
        pooling no operation is a kernel of ours, and BLAS keeps the cores. Compiled epochs and
        predictions do not call it.
        """
        with super().computation(kinds):
            if kinds & COMPILED_KINDS:
                with self._blas.limit(limits=1):
                    yield
            else:
                yield

    def compile_epoch(self, program: TrainingProgram) -> CompiledEpoch:
        """Return the program for the kernels of whole epochs."""
        _require_one_channel(program)
        module = importlib.import_module("backends.numba.epoch")
        epoch: CompiledEpoch = module.NumbaEpoch(
            program, threads=self._threads_for, pool=self._pool, lock=self._epoch_lock
        )
        return epoch

    def compile_inference(self, program: Program) -> CompiledInference:
        """Return the program for the kernels of predictions."""
        _require_one_channel(program)
        module = importlib.import_module("backends.numba.inference")
        inference: CompiledInference = module.NumbaInference(
            program, threads=self._threads_for, pool=self._pool
        )
        return inference

    def device_info(self) -> DeviceInfo:
        """Describe the processor, the memory and the libraries."""
        numba = importlib.import_module("numba")
        info = super().device_info()
        libraries = {**info.libraries, "numba": numba.__version__}
        return replace(info, libraries=libraries)

    def conv2d(
        self,
        x: NDArray[Any],
        weight: NDArray[Any],
        bias: NDArray[Any] | None,
        *,
        stride: int,
        padding: int,
        uniform: bool = False,
    ) -> NDArray[Any]:
        """Convolve with the compiled kernel, which is uniform, where the stride is 1."""
        if stride != 1:
            composed: NDArray[Any] = super().conv2d(
                x, weight, bias, stride=stride, padding=padding, uniform=uniform
            )
            return composed
        require_same_dtype("conv2d", x=x, weight=weight, bias=bias)
        y = np.empty(conv2d_shape(x, weight, stride=1, padding=padding), x.dtype)
        require_shape("bias", bias, (weight.shape[0],))
        if bias is None:
            bias = np.zeros(weight.shape[0], x.dtype)
        bias = np.ascontiguousarray(bias)
        x = self._padded(x, padding)
        weight = np.ascontiguousarray(weight)
        self._run(self._convolution.conv2d, x, weight, bias, y)
        return y

    def conv2d_backward(
        self,
        dy: NDArray[Any],
        x: NDArray[Any],
        weight: NDArray[Any],
        *,
        stride: int,
        padding: int,
        need_dx: bool,
    ) -> tuple[NDArray[Any] | None, NDArray[Any], NDArray[Any]]:
        """Compute the gradients with the compiled kernel where the stride is 1."""
        if stride != 1:
            return super().conv2d_backward(
                dy, x, weight, stride=stride, padding=padding, need_dx=need_dx
            )
        require_same_dtype("conv2d_backward", dy=dy, x=x, weight=weight)
        require_shape("dy", dy, conv2d_shape(x, weight, stride=1, padding=padding))
        height, width = x.shape[2:]
        x = self._padded(x, padding)
        weight = np.ascontiguousarray(weight)
        dy = np.ascontiguousarray(dy)
        dx = np.empty(x.shape if need_dx else (0, *x.shape[1:]), x.dtype)
        # One sum for each chunk, added in the order of the chunks: the same whoever was first.
        chunks = self._chunk_count(x)
        dweights = np.empty((chunks, *weight.shape), weight.dtype)
        dbiases = np.empty((chunks, weight.shape[0]), weight.dtype)
        self._run(self._convolution.conv2d_backward, dy, x, weight, dx, dweights, dbiases)
        dweight, dbias = dweights.sum(axis=0), dbiases.sum(axis=0)
        if not need_dx:
            return None, dweight, dbias
        return dx[:, :, padding : padding + height, padding : padding + width], dweight, dbias

    def max_pool2d(
        self, x: NDArray[Any], *, size: int, stride: int, ties: Ties
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Pool with the compiled kernel."""
        check_pooling(size, ties)
        y = np.empty(pooled_shape(x.shape, size=size, stride=stride), x.dtype)
        mask = np.empty(y.shape, np.uint8 if size * size <= 8 else np.int64)
        x = np.ascontiguousarray(x)
        self._run(self._pooling.max_pool2d, x, size, stride, ties == "all", y, mask)
        return y, mask

    def max_pool2d_backward(
        self,
        dy: NDArray[Any],
        mask: NDArray[Any],
        *,
        x_shape: tuple[int, int, int, int],
        size: int,
        stride: int,
    ) -> NDArray[Any]:
        """Spread the gradient with the compiled kernel."""
        expected = pooled_shape(x_shape, size=size, stride=stride)
        require_shape("dy", dy, expected)
        require_shape("mask", mask, expected)
        dx = np.empty(x_shape, dy.dtype)
        dy = np.ascontiguousarray(dy)
        mask = np.ascontiguousarray(mask)
        self._run(self._pooling.max_pool2d_backward, dy, mask, size, stride, dx)
        return dx

    def avg_pool2d(self, x: NDArray[Any], *, size: int, stride: int) -> NDArray[Any]:
        """Average with the compiled kernel."""
        y = np.empty(pooled_shape(x.shape, size=size, stride=stride), x.dtype)
        x = np.ascontiguousarray(x)
        self._run(self._pooling.avg_pool2d, x, size, stride, y)
        return y

    def avg_pool2d_backward(
        self, dy: NDArray[Any], *, x_shape: tuple[int, int, int, int], size: int, stride: int
    ) -> NDArray[Any]:
        """Spread the gradient with the compiled kernel."""
        require_shape("dy", dy, pooled_shape(x_shape, size=size, stride=stride))
        dx = np.empty(x_shape, dy.dtype)
        dy = np.ascontiguousarray(dy)
        self._run(self._pooling.avg_pool2d_backward, dy, size, stride, dx)
        return dx

    def _run(self, kernel: Callable[..., None], *arrays: Any) -> None:
        """Run a kernel on a batch, its chunks shared among threads.

        Args:
            kernel: takes `arrays` and a range of chunks.
            arrays: the first says how many images there are.
        """
        chunks = self._chunk_count(arrays[0])
        ranges = min(self.threads or self._most_threads, chunks)
        bounds = [chunks * i // ranges for i in range(ranges + 1)] if chunks else [0, 0]
        others = [
            self._pool().submit(kernel, *arrays, first, last)
            for first, last in pairwise(bounds[1:])
        ]
        kernel(*arrays, bounds[0], bounds[1])
        for other in others:
            other.result()

    def _chunk_count(self, images: NDArray[Any]) -> int:
        """Return how many chunks a batch is cut into."""
        return -(-len(images) // self._images_per_chunk)

    def _pool(self) -> ThreadPoolExecutor:
        """Return the threads that help this one; a forked process has to start its own."""
        process, most = os.getpid(), max(self.threads or 0, self._most_threads)
        if self._pool_of != (process, most):
            self._helpers = ThreadPoolExecutor(most - 1, "mnist_accel-kernel")
            self._pool_of = process, most
        return self._helpers

    def _threads_for(self, images: int) -> int:
        """Return how many threads share the steps of a compiled epoch.

        Args:
            images: of a whole batch.
        """
        if self.threads is not None:
            return min(self.threads, images)
        return max(1, min(self._most_threads, images // FEWEST_IMAGES_A_THREAD))

    def _padded(self, x: NDArray[Any], padding: int) -> NDArray[Any]:
        """Return `x` in C order, as the kernels take it, with its border of zeros."""
        return np.ascontiguousarray(self._pad(x, padding) if padding else x)


def _require_one_channel(program: Program) -> None:
    shape = program.stages[0].input_shape
    if len(shape) == 3 and shape[0] != 1:
        raise NotCompiledError(f"compiled networks take images of 1 channel, not {shape[0]}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
