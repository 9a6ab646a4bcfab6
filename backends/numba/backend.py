"""The Numba backend: NumPy arrays on the CPU, with compiled kernels.

Kernels compute convolution, pooling, whole epochs and predictions. Compiled code is cached on disk,
so only the first run of an installation waits for the compiler.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from backends.availability import Availability
from backends.base import DeviceInfo
from backends.numba.epoch import NumbaEpoch
from backends.numba.inference import NumbaInference
from backends.numba.kernels import convolution, epoch, losses, pooling
from backends.numba.kernels.tiles import IMAGES_PER_TILE
from backends.numba.probe import availability
from backends.numba.single_update import has_update_kernel, update
from backends.numba.threads import WorkerPool, run_in_ranges, threads_for, training_threads
from backends.numpy.backend import NumpyBackend
from backends.operations.common import (
    Ties,
    check_max_pooling,
    has_kernel_dtype,
    require_same_dtype,
    require_shape,
)
from backends.operations.convolution import conv2d_shape
from backends.operations.pooling import pooled_shape, require_mask
from backends.operations.updates import UpdateRule, require_vectors
from backends.program import (
    CompiledEpoch,
    CompiledInference,
    Program,
    TrainingProgram,
)

# Measured with an empty cache on one core and on two cores of 2025. Linear networks take half a
# second less, networks with convolutions half a second more.
COMPILE_SECONDS = 4.5
COMPILE_SECONDS_WITH_HELPERS = 3.0
# Single operations that may use several threads. Others have kernels, too, but use one thread.
COMPILED_OPERATIONS = frozenset({"conv2d", "max_pool2d", "avg_pool2d"})
# Starting another thread takes as long as pooling this many numbers.
_POOLED_PER_THREAD = 400_000


class NumbaBackend(NumpyBackend):
    """NumPy arrays on the CPU; Numba compiles convolution, pooling, epochs and predictions."""

    name = "numba"

    def __init__(self) -> None:
        super().__init__()
        config: Any = numba.config  # Numba sets its attributes when it is imported
        self._max_threads: int = config.NUMBA_NUM_THREADS
        self._workers = WorkerPool()
        self._epoch_lock = threading.Lock()

    @property
    def max_threads(self) -> int:
        """Maximum number of threads for a batch if the user sets none."""
        return self._max_threads

    @classmethod
    def availability(cls) -> Availability:
        """Return whether Numba can be imported and a kernel gives the right result."""
        return availability()

    def _blas_threads(self, kinds: frozenset[str]) -> int | None:
        """Return one thread if compiled kernels and BLAS take turns.

        Idle threads of OpenBLAS spin and so take cores from the kernels: a step of a CNN takes
        twice as long. Where only one of them runs, it keeps all cores.
        """
        takes_turns = kinds & COMPILED_OPERATIONS and kinds - COMPILED_OPERATIONS
        return 1 if takes_turns else self.threads

    @property
    def compile_seconds(self) -> float:
        """Seconds that compiling takes before the first training in an installation."""
        if not epoch.run_steps._cache.is_empty():
            return 0.0
        return COMPILE_SECONDS if self._max_threads == 1 else COMPILE_SECONDS_WITH_HELPERS

    def compile_epoch(self, program: TrainingProgram) -> CompiledEpoch:
        """Return an object that runs many training steps in one compiled call."""
        return NumbaEpoch(
            program, threads=self._training_threads, executor=self._executor, lock=self._epoch_lock
        )

    def compile_inference(self, program: Program) -> CompiledInference:
        """Return an object that predicts in one compiled call."""
        return NumbaInference(program, threads=self._threads_for, executor=self._executor)

    def device_info(self) -> DeviceInfo:
        """Return the processor, its memory and the versions of the libraries."""
        info = super().device_info()
        return replace(info, libraries={**info.libraries, "numba": numba.__version__})

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
        """Convolve with the compiled kernel if the stride is 1; the kernel is always uniform."""
        if stride != 1 or not has_kernel_dtype(x):
            composed: NDArray[Any] = super().conv2d(
                x, weight, bias, stride=stride, padding=padding, uniform=uniform
            )
            return composed
        require_same_dtype("conv2d", x=x, weight=weight, bias=bias)
        y = np.empty(conv2d_shape(x, weight, stride=stride, padding=padding), x.dtype)
        if bias is None:
            bias = np.zeros(weight.shape[0], x.dtype)
        require_shape("bias", bias, (weight.shape[0],))
        self._run(convolution.conv2d, x, weight, bias, (padding, padding), y)
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
        """Compute the gradients with the compiled kernel if the stride is 1."""
        if stride != 1 or not has_kernel_dtype(x):
            return super().conv2d_backward(
                dy, x, weight, stride=stride, padding=padding, need_dx=need_dx
            )
        require_same_dtype("conv2d_backward", dy=dy, x=x, weight=weight)
        require_shape("dy", dy, conv2d_shape(x, weight, stride=stride, padding=padding))
        # Each tile has a partial sum, and NumPy adds these in a fixed order. Results therefore do
        # not depend on the number of threads.
        tiles = _tile_count(x)
        dweights = np.empty((tiles, *weight.shape), weight.dtype)
        dbiases = np.empty((tiles, weight.shape[0]), weight.dtype)
        dx = np.empty(x.shape, x.dtype) if need_dx else None
        rotated = np.flip(weight.swapaxes(0, 1), (2, 3))
        self._run(convolution.conv2d_backward, dy, x, rotated, padding, dx, dweights, dbiases)
        return dx, dweights.sum(axis=0), dbiases.sum(axis=0)

    def max_pool2d(
        self, x: NDArray[Any], *, size: int, stride: int, ties: Ties
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Pool with the compiled kernel."""
        if not has_kernel_dtype(x):
            return super().max_pool2d(x, size=size, stride=stride, ties=ties)
        check_max_pooling(size, ties)
        y = np.empty(pooled_shape(x.shape, size=size, stride=stride), x.dtype)
        mask = np.empty(y.shape, np.uint8 if size * size <= 8 else np.int64)
        if size == stride == 2:
            threads = 1 + x.size // _POOLED_PER_THREAD
            self._run(pooling.max_pool_2x2, x, ties == "all", y, mask, max_threads=threads)
        else:
            self._run(pooling.max_pool2d, x, size, stride, ties == "all", y, mask)
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
        """Compute the gradient with the compiled kernel."""
        gradient: NDArray[Any]
        if not has_kernel_dtype(dy):
            gradient = super().max_pool2d_backward(
                dy, mask, x_shape=x_shape, size=size, stride=stride
            )
            return gradient
        check_max_pooling(size)
        expected = pooled_shape(x_shape, size=size, stride=stride)
        require_shape("dy", dy, expected)
        require_mask(self.xp, mask, expected, size=size)
        dx = np.empty(x_shape, dy.dtype)
        if size == stride == 2:
            threads = 1 + dx.size // _POOLED_PER_THREAD
            self._run(pooling.max_pool_2x2_backward, dy, mask, dx, max_threads=threads)
        else:
            self._run(pooling.max_pool2d_backward, dy, mask, size, stride, dx)
        return dx

    def avg_pool2d(self, x: NDArray[Any], *, size: int, stride: int) -> NDArray[Any]:
        """Pool with the compiled kernel."""
        means: NDArray[Any]
        if not has_kernel_dtype(x):
            means = super().avg_pool2d(x, size=size, stride=stride)
            return means
        y = np.empty(pooled_shape(x.shape, size=size, stride=stride), x.dtype)
        self._run(pooling.avg_pool2d, x, size, stride, y)
        return y

    def avg_pool2d_backward(
        self, dy: NDArray[Any], *, x_shape: tuple[int, int, int, int], size: int, stride: int
    ) -> NDArray[Any]:
        """Compute the gradient with the compiled kernel."""
        gradient: NDArray[Any]
        if not has_kernel_dtype(dy):
            gradient = super().avg_pool2d_backward(dy, x_shape=x_shape, size=size, stride=stride)
            return gradient
        require_shape("dy", dy, pooled_shape(x_shape, size=size, stride=stride))
        dx = np.empty(x_shape, dy.dtype)
        self._run(pooling.avg_pool2d_backward, dy, size, stride, dx)
        return dx

    def loss(
        self,
        kind: str,
        logits: NDArray[Any],
        targets: NDArray[Any],
        weights: NDArray[Any] | None = None,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Compute softmax cross-entropy with the compiled kernel."""
        if kind != "softmax_cross_entropy" or weights is not None or not has_kernel_dtype(logits):
            return super().loss(kind, logits, targets, weights)
        self._check_loss(kind, logits, targets, weights)
        dlogits = np.empty(logits.shape, logits.dtype)
        labels = np.ascontiguousarray(targets, np.int64)
        loss = losses.mean_softmax_cross_entropy(np.ascontiguousarray(logits), labels, dlogits)
        return logits.dtype.type(loss), dlogits

    def update(
        self,
        rule: UpdateRule,
        weights: NDArray[Any],
        grads: NDArray[Any],
        state: Mapping[str, NDArray[Any]],
        *,
        lr: float,
        step: int,
    ) -> None:
        """Update with the compiled kernel of the optimizer."""
        require_vectors(weights, grads, state)
        if has_update_kernel(rule, weights, grads, state):
            update(rule, weights, grads, state, lr, step)
        else:
            super().update(rule, weights, grads, state, lr=lr, step=step)

    def _run(
        self, kernel: Callable[..., None], *arguments: Any, max_threads: int | None = None
    ) -> None:
        """Run a kernel on the tiles of a batch, divided among threads.

        Args:
            kernel: takes `arguments` and a range of tiles.
            arguments: arrays and settings. The length of the first array is the number of images.
                Inputs may have any order in memory; outputs must be contiguous.
            max_threads: maximum number of threads for this much work; None for no limit.
        """
        tiles = _tile_count(arguments[0])
        # An array that is contiguous already is not copied.
        contiguous = [
            np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value
            for value in arguments
        ]

        def task(first: int, last: int) -> None:
            kernel(*contiguous, first, last)

        ranges = min(self.threads or self.max_threads, tiles, max_threads or tiles)
        run_in_ranges(self._executor, task, tiles, ranges=ranges)

    def _executor(self) -> ThreadPoolExecutor:
        """Return the pool of worker threads: one less than compute, as the caller also computes."""
        return self._workers.executor(max(self.threads or 0, self.max_threads) - 1)

    def _training_threads(self, images: int) -> int:
        """Return how many threads share a compiled step with `images` images."""
        return training_threads(images, chosen=self.threads, max_threads=self.max_threads)

    def _threads_for(self, images: int) -> int:
        """Return how many threads predict `images` images."""
        return threads_for(images, chosen=self.threads, max_threads=self.max_threads)


def _tile_count(images: NDArray[Any]) -> int:
    """Return the number of tiles in a batch."""
    return -(-len(images) // IMAGES_PER_TILE)
