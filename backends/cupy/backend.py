"""The GPU backend: CuPy, with kernels of ours for single operations and whole epochs.

Works with CuPy 13 and 14. CuPy is imported when a backend is asked for, never before: the import
takes a third of a second, and most machines have no GPU.
"""

import importlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.availability import Availability
from backends.base import Backend, DeviceInfo
from backends.cupy.epoch import CupyEpoch
from backends.cupy.launch.launches import LOSSES, MOST_KERNEL_SIZE, RULES, THREADS, Launches
from backends.cupy.launch.shapes import Filters, Maps, Windows
from backends.cupy.launch.wgrad_update import cut_filters, patch_of
from backends.cupy.loader import REAL, Kernels
from backends.cupy.memory import memory_errors
from backends.cupy.probe import availability, cuda_version, describe_device, multiply_in_float32
from backends.operations.common import (
    Array,
    Ties,
    check_pooling,
    require_same_dtype,
    require_shape,
)
from backends.operations.convolution import conv2d_shape
from backends.operations.pooling import pooled_shape
from backends.operations.updates import UpdateRule
from backends.program import CompiledEpoch, TrainingProgram


class CupyBackend(Backend):
    """CuPy arrays on one NVIDIA GPU."""

    name = "cupy"

    def __init__(self) -> None:
        self._use(importlib.import_module("cupy"), importlib.import_module("array_api_compat.cupy"))
        multiply_in_float32()

    def _use(self, cupy: Any, xp: Any) -> None:
        """Compute with a library; the tests hand in one that stands in for CuPy."""
        self.xp = xp
        self._cupy = cupy
        self._kernels = Kernels(cupy)
        self._launches = {dtype: Launches(self._kernels, dtype) for dtype in REAL}

    @classmethod
    def availability(cls) -> Availability:
        """Return the device, or the first requirement of CuPy that is missing."""
        return availability()

    @property
    def device_count(self) -> int:
        """How many GPUs this process sees."""
        count: int = self._cupy.cuda.runtime.getDeviceCount()
        return count

    @contextmanager
    def computation(self, kinds: frozenset[str]) -> Iterator[None]:
        """Select the GPU."""
        with self._on_device():
            yield

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Select the GPU for this thread of the host, and the one before at the end."""
        selected = nullcontext() if self.device is None else self._cupy.cuda.Device(self.device)
        with selected, memory_errors(self._cupy):
            yield

    def asarray(self, host: NDArray[Any], *, dtype: str | None = None) -> Array:
        """Copy `host` to the device."""
        with self._on_device():
            return self._cupy.array(host, dtype=dtype, order="C")

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Copy `array` to the host; waits for the work that computes it."""
        with self._on_device():
            host: NDArray[Any] = self._cupy.asnumpy(array)
        return host

    def synchronize(self) -> None:
        """Wait for all work on the device."""
        with self._on_device():
            self._cupy.cuda.runtime.deviceSynchronize()

    def device_info(self) -> DeviceInfo:
        """Describe the GPU, its memory, the driver and the CUDA runtime."""
        runtime = self._cupy.cuda.runtime
        with self._on_device():
            _, total = runtime.memGetInfo()
            name = describe_device()
        return DeviceInfo(
            name=name,
            memory_total_bytes=int(total),
            libraries={
                "cupy": self._cupy.__version__,
                "cuda_driver": cuda_version(runtime.driverGetVersion()),
                "cuda_runtime": cuda_version(runtime.runtimeGetVersion()),
            },
        )

    def compile_epoch(self, program: TrainingProgram) -> CompiledEpoch:
        """Return the program as CUDA graphs of its steps.

        Raises:
            NotCompiledError: there is no kernel for part of it.
        """
        with self._on_device():
            return CupyEpoch(program, cupy=self._cupy, kernels=self._kernels)

    # ------------------------------------------------------------------------------------ batches

    def gather_batch(self, images: Array, indices: Array, *, dtype: str, shift: float) -> Array:
        """Gather and normalise in one kernel."""
        if not (str(images.dtype) in ("uint8", dtype) and dtype in REAL and images.ndim == 2):
            return super().gather_batch(images, indices, dtype=dtype, shift=shift)
        batch = self._cupy.empty((indices.shape[0], images.shape[1]), dtype)
        rows = indices.astype(np.int64, copy=False)
        self._launches[dtype].gather_batch(
            self._in_c_order(images), self._in_c_order(rows), shift, batch
        )
        return batch

    # -------------------------------------------------------------------------------- convolution

    def conv2d(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        *,
        stride: int,
        padding: int,
        uniform: bool = False,
    ) -> Array:
        """Convolve with a kernel, which is uniform, where it has one."""
        if not _has_convolution(x, weight, stride):
            return super().conv2d(x, weight, bias, stride=stride, padding=padding, uniform=uniform)
        require_same_dtype("conv2d", x=x, weight=weight, bias=bias)
        y = self._cupy.empty(conv2d_shape(x, weight, stride=1, padding=padding), x.dtype)
        require_shape("bias", bias, (weight.shape[0],))
        self._launches[str(x.dtype)].conv2d(
            self._in_c_order(x),
            self._in_c_order(weight),
            None if bias is None else self._in_c_order(bias),
            y,
            None,
            _maps(x, weight, padding),
            Filters(weight.shape[2]),
        )
        return y

    def conv2d_backward(
        self, dy: Array, x: Array, weight: Array, *, stride: int, padding: int, need_dx: bool
    ) -> tuple[Array | None, Array, Array]:
        """Compute the gradients with kernels where there are some."""
        if not _has_convolution(x, weight, stride):
            return super().conv2d_backward(
                dy, x, weight, stride=stride, padding=padding, need_dx=need_dx
            )
        require_same_dtype("conv2d_backward", dy=dy, x=x, weight=weight)
        require_shape("dy", dy, conv2d_shape(x, weight, stride=1, padding=padding))
        dy, x, weight = (self._in_c_order(array) for array in (dy, x, weight))
        launches = self._launches[str(x.dtype)]
        maps, filters = _maps(x, weight, padding), Filters(weight.shape[2])
        size, cells = filters.kernel_size, math.prod(dy.shape[2:])
        cut = cut_filters(maps, size, len(x), cells=cells, patch=patch_of(size), threads=THREADS)
        sums = self._cupy.empty((cut.shares, cut.parameters), x.dtype)
        launches.conv2d_backward_weight(dy, x, sums, cut, maps, filters)
        grads = sums[0] if cut.shares == 1 else sums.sum(axis=0)
        dweight, dbias = grads[: weight.size].reshape(weight.shape), grads[weight.size :]
        dx = None
        if need_dx:
            dx = self._cupy.empty(x.shape, x.dtype)
            launches.conv2d_backward_x(dy, None, weight, x, dx, maps, filters)
        return dx, dweight, dbias

    # ------------------------------------------------------------------------------------ pooling

    def max_pool2d(self, x: Array, *, size: int, stride: int, ties: Ties) -> tuple[Array, Array]:
        """Pool with a kernel."""
        if str(x.dtype) not in REAL:
            return super().max_pool2d(x, size=size, stride=stride, ties=ties)
        check_pooling(size, ties)
        y = self._cupy.empty(pooled_shape(x.shape, size=size, stride=stride), x.dtype)
        mask = self._cupy.empty(y.shape, "uint8" if size * size <= 8 else "int64")
        self._launches[str(x.dtype)].max_pool2d(
            self._in_c_order(x), y, mask, _windows(x.shape, size, stride), ties
        )
        return y, mask

    def max_pool2d_backward(
        self,
        dy: Array,
        mask: Array,
        *,
        x_shape: tuple[int, int, int, int],
        size: int,
        stride: int,
    ) -> Array:
        """Spread the gradient with a kernel."""
        if str(dy.dtype) not in REAL:
            return super().max_pool2d_backward(dy, mask, x_shape=x_shape, size=size, stride=stride)
        expected = pooled_shape(x_shape, size=size, stride=stride)
        require_shape("dy", dy, expected)
        require_shape("mask", mask, expected)
        dx = self._cupy.empty(x_shape, dy.dtype)
        self._launches[str(dy.dtype)].max_pool2d_backward(
            self._in_c_order(dy), self._in_c_order(mask), dx, _windows(x_shape, size, stride)
        )
        return dx

    def avg_pool2d(self, x: Array, *, size: int, stride: int) -> Array:
        """Average with a kernel."""
        if str(x.dtype) not in REAL:
            return super().avg_pool2d(x, size=size, stride=stride)
        y = self._cupy.empty(pooled_shape(x.shape, size=size, stride=stride), x.dtype)
        windows = _windows(x.shape, size, stride)
        self._launches[str(x.dtype)].avg_pool2d(self._in_c_order(x), y, windows)
        return y

    def avg_pool2d_backward(
        self, dy: Array, *, x_shape: tuple[int, int, int, int], size: int, stride: int
    ) -> Array:
        """Spread the gradient with a kernel."""
        if str(dy.dtype) not in REAL:
            return super().avg_pool2d_backward(dy, x_shape=x_shape, size=size, stride=stride)
        require_shape("dy", dy, pooled_shape(x_shape, size=size, stride=stride))
        dx = self._cupy.empty(x_shape, dy.dtype)
        windows = _windows(x_shape, size, stride)
        self._launches[str(dy.dtype)].avg_pool2d_backward(self._in_c_order(dy), dx, windows)
        return dx

    # ------------------------------------------------------------------------------------- losses

    def loss(self, kind: str, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Compute losses and gradient in one kernel."""
        if not _has_loss(kind, logits, labels):
            return super().loss(kind, logits, labels)
        rows = logits.shape[0]
        dlogits = self._cupy.empty(logits.shape, logits.dtype)
        losses = self._cupy.empty(rows, logits.dtype)
        correct = self._cupy.empty(rows, "int32")
        self._launches[str(logits.dtype)].loss_and_gradient(
            kind, self._in_c_order(logits), self._in_c_order(labels), dlogits, losses, correct
        )
        return self.xp.sum(losses) / float(rows), dlogits

    # ------------------------------------------------------------------------------------ updates

    def update(
        self,
        rule: UpdateRule,
        weights: Array,
        grads: Array,
        state: Mapping[str, Array],
        *,
        lr: float,
        step: int,
    ) -> None:
        """Change the weights and the state in one kernel."""
        arrays = tuple(state[name] for name in rule.state_names)
        if not _has_update(rule.kind, weights, grads, *arrays):
            super().update(rule, weights, grads, state, lr=lr, step=step)
            return
        launches = self._launches[str(weights.dtype)]
        rates = map(float, rule.rates(lr, step))
        launches.update(rule.kind, weights, grads, arrays, *rates, settings=rule.settings)

    def _in_c_order(self, array: Array) -> Array:
        return self._cupy.ascontiguousarray(array)


def _has_convolution(x: Array, weight: Array, stride: int) -> bool:
    """Say whether there is a kernel for a convolution."""
    height, width = weight.shape[2:]
    return str(x.dtype) in REAL and stride == 1 and height == width <= MOST_KERNEL_SIZE


def _has_loss(kind: str, logits: Array, labels: Array) -> bool:
    """Return whether there is a kernel for a loss."""
    return kind in LOSSES and str(logits.dtype) in REAL and str(labels.dtype) in ("int32", "int64")


def _has_update(kind: str, *arrays: Array) -> bool:
    """Return whether there is a kernel for a rule and its arrays: of one dtype, without gaps."""
    if kind not in RULES:
        return False
    kinds = {str(array.dtype) for array in arrays}
    return len(kinds) == 1 and kinds <= set(REAL) and all(a.flags.c_contiguous for a in arrays)


def _maps(x: Array, weight: Array, padding: int) -> Maps:
    _, channels, height, width = x.shape
    return Maps(channels, height, width, weight.shape[0], padding)


def _windows(x_shape: tuple[int, int, int, int], size: int, stride: int) -> Windows:
    _, _, height, width = x_shape
    _, _, pooled_height, pooled_width = pooled_shape(x_shape, size=size, stride=stride)
    return Windows(height, width, pooled_height, pooled_width, size, stride)
