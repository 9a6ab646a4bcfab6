"""The GPU backend: CuPy, with CUDA kernels of this project for operations and compiled training.

Works with CuPy 13 and 14. CuPy is imported when a backend is created, so that the tests can run the
backend with an emulation of CuPy where CuPy is not installed.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.availability import Availability
from backends.base import Backend, DeviceInfo
from backends.cupy.epoch import CupyEpoch
from backends.cupy.inference import CupyInference
from backends.cupy.launch import convolution, losses, pooling, updates
from backends.cupy.launch.conv_shape import conv_shape
from backends.cupy.launch.images import gather_batch
from backends.cupy.launch.launcher import THREADS, Launcher
from backends.cupy.launch.pooling import mask_dtype, pool_shape
from backends.cupy.launch.wgrad_update import filter_tile_for, split_conv
from backends.cupy.loader import REAL, Kernels
from backends.cupy.memory import memory_errors
from backends.cupy.plan import COMPILED
from backends.cupy.probe import availability, cuda_version, describe_device, disable_tf32
from backends.cupy.streams import Streams
from backends.operations.common import (
    Array,
    Ties,
    TrustedIndices,
    check_max_pooling,
    has_dtype,
    has_kernel_dtype,
    require_same_dtype,
    require_shape,
)
from backends.operations.convolution import conv2d_shape
from backends.operations.pooling import pooled_shape, require_mask
from backends.operations.updates import UpdateRule, require_vectors, state_arrays
from backends.program import CompiledEpoch, CompiledInference, Program, TrainingProgram


class CupyBackend(Backend):
    """CuPy arrays on one NVIDIA GPU."""

    name = "cupy"

    def __init__(self) -> None:
        import array_api_compat.cupy as xp
        import cupy

        self._use(cupy, xp)
        disable_tf32()

    def _use(self, cupy: Any, xp: Any) -> None:
        """Set the array library; the tests pass an emulation of CuPy."""
        self.xp = xp
        self._cupy = cupy
        self._kernels = Kernels(cupy)
        self._streams = Streams(cupy)
        self._launchers = {dtype: Launcher(self._kernels, dtype) for dtype in REAL}

    @classmethod
    def availability(cls) -> Availability:
        """Return the device, or the first requirement of CuPy that is missing."""
        return availability()

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the GPUs that this process sees."""
        count: int = self._cupy.cuda.runtime.getDeviceCount()
        return tuple(f"cuda:{number}" for number in range(count))

    @contextmanager
    def computation(self, kinds: frozenset[str]) -> Iterator[None]:
        """Select the GPU."""
        with self._on_device(), TrustedIndices():
            yield

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Select the GPU for this host thread, and restore the previous selection at the end."""
        selected = nullcontext()
        if self.device is not None:
            selected = self._cupy.cuda.Device(int(self.device.removeprefix("cuda:")))
        with selected, memory_errors(self._cupy):
            yield

    def asarray(self, host: NDArray[Any], *, dtype: str | None = None) -> Array:
        """Copy `host` to the device, in C order."""
        with self._on_device():
            return self._cupy.array(host, dtype=dtype, order="C")

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Copy `array` to the host; wait until it is computed."""
        with self._on_device():
            host: NDArray[Any] = self._cupy.asnumpy(array)
        return host

    def synchronize(self) -> None:
        """Wait for all work on the device."""
        with self._on_device():
            self._cupy.cuda.runtime.deviceSynchronize()

    def device_info(self) -> DeviceInfo:
        """Return name and memory of the GPU, and the versions of driver and CUDA runtime."""
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
        """Return the compiled form of a program.

        Raises:
            NotCompiledError: a part of the program has no kernel.
        """
        with self._on_device():
            return CupyEpoch(program, cupy=self._cupy, kernels=self._kernels, streams=self._streams)

    def compile_inference(self, program: Program) -> CompiledInference:
        """Return the compiled form of the predictions of a program.

        Raises:
            NotCompiledError: a part of the program has no kernel.
        """
        return CupyInference(
            program,
            cupy=self._cupy,
            kernels=self._kernels,
            streams=self._streams,
            select=self._on_device,
        )

    # ------------------------------------------------------------------------------------ batches

    def gather_batch(self, images: Array, indices: Array, *, dtype: str, shift: float) -> Array:
        """Gather and normalize in one kernel."""
        if not (has_dtype(images, "uint8", dtype) and dtype in REAL and images.ndim == 2):
            return super().gather_batch(images, indices, dtype=dtype, shift=shift)
        self._check_gather(images, indices)
        batch = self._cupy.empty((indices.shape[0], images.shape[1]), dtype)
        images, rows = map(self._in_c_order, (images, indices.astype(np.int64, copy=False)))
        gather_batch(self._launchers[dtype], images, rows, float(shift), batch)
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
        """Convolve with a kernel if the stride is 1; the kernel is always uniform."""
        if not _has_convolution(x, weight, stride):
            return super().conv2d(x, weight, bias, stride=stride, padding=padding, uniform=uniform)
        require_same_dtype("conv2d", x=x, weight=weight, bias=bias)
        y = self._cupy.empty(conv2d_shape(x, weight, stride=stride, padding=padding), x.dtype)
        if bias is not None:
            require_shape("bias", bias, (weight.shape[0],))
        shape = conv_shape(x.shape, len(weight), weight.shape[-1], padding)
        x, weight = self._in_c_order(x), self._in_c_order(weight)
        bias = None if bias is None else self._in_c_order(bias)
        convolution.conv2d(self._launcher(x), x, weight, bias, y, None, shape)
        return y

    def conv2d_backward(
        self, dy: Array, x: Array, weight: Array, *, stride: int, padding: int, need_dx: bool
    ) -> tuple[Array | None, Array, Array]:
        """Compute the gradients with kernels if the stride is 1."""
        if not _has_convolution(x, weight, stride):
            return super().conv2d_backward(
                dy, x, weight, stride=stride, padding=padding, need_dx=need_dx
            )
        require_same_dtype("conv2d_backward", dy=dy, x=x, weight=weight)
        require_shape("dy", dy, conv2d_shape(x, weight, stride=stride, padding=padding))
        dy, x, weight = (self._in_c_order(array) for array in (dy, x, weight))
        launcher = self._launcher(x)
        shape = conv_shape(x.shape, len(weight), weight.shape[-1], padding)
        split = split_conv(
            shape,
            len(x),
            cells=math.prod(dy.shape[2:]),
            filter_tile=filter_tile_for(shape.kernel_size),
            threads=THREADS,
        )
        partial_sums = self._cupy.empty((split.splits, split.parameters), x.dtype)
        convolution.conv2d_backward_weight(launcher, dy, x, partial_sums, split, shape)
        grads = partial_sums[0] if split.splits == 1 else partial_sums.sum(axis=0)
        dweight, dbias = grads[: weight.size].reshape(weight.shape), grads[weight.size :]
        dx = None
        if need_dx:
            dx = self._cupy.empty(x.shape, x.dtype)
            convolution.conv2d_backward_x(launcher, dy, None, weight, x, dx, shape)
        return dx, dweight, dbias

    # ------------------------------------------------------------------------------------ pooling

    def max_pool2d(self, x: Array, *, size: int, stride: int, ties: Ties) -> tuple[Array, Array]:
        """Compute maxima and tie masks in one kernel."""
        if not has_kernel_dtype(x):
            return super().max_pool2d(x, size=size, stride=stride, ties=ties)
        check_max_pooling(size, ties)
        y = self._cupy.empty(pooled_shape(x.shape, size=size, stride=stride), x.dtype)
        mask = self._cupy.empty(y.shape, mask_dtype(size))
        shape = pool_shape(x.shape, y.shape, size, stride)
        pooling.max_pool2d(self._launcher(x), self._in_c_order(x), y, mask, shape, ties)
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
        """Compute the gradient in one kernel."""
        if not has_kernel_dtype(dy):
            return super().max_pool2d_backward(dy, mask, x_shape=x_shape, size=size, stride=stride)
        check_max_pooling(size)
        expected = pooled_shape(x_shape, size=size, stride=stride)
        require_shape("dy", dy, expected)
        require_mask(self.xp, mask, expected, size=size)
        dx = self._cupy.empty(x_shape, dy.dtype)
        shape, launcher = pool_shape(x_shape, expected, size, stride), self._launcher(dy)
        dy, mask = self._in_c_order(dy), self._in_c_order(mask)
        pooling.max_pool2d_backward(launcher, dy, mask, dx, shape)
        return dx

    def avg_pool2d(self, x: Array, *, size: int, stride: int) -> Array:
        """Compute means in one kernel."""
        if not has_kernel_dtype(x):
            return super().avg_pool2d(x, size=size, stride=stride)
        y = self._cupy.empty(pooled_shape(x.shape, size=size, stride=stride), x.dtype)
        shape = pool_shape(x.shape, y.shape, size, stride)
        pooling.avg_pool2d(self._launcher(x), self._in_c_order(x), y, shape)
        return y

    def avg_pool2d_backward(
        self, dy: Array, *, x_shape: tuple[int, int, int, int], size: int, stride: int
    ) -> Array:
        """Compute the gradient in one kernel."""
        if not has_kernel_dtype(dy):
            return super().avg_pool2d_backward(dy, x_shape=x_shape, size=size, stride=stride)
        require_shape("dy", dy, pooled_shape(x_shape, size=size, stride=stride))
        dx = self._cupy.empty(x_shape, dy.dtype)
        shape = pool_shape(x_shape, dy.shape, size, stride)
        pooling.avg_pool2d_backward(self._launcher(dy), self._in_c_order(dy), dx, shape)
        return dx

    # ------------------------------------------------------------------------------------- losses

    def loss(
        self, kind: str, logits: Array, targets: Array, weights: Array | None = None
    ) -> tuple[Array, Array]:
        """Compute loss and gradient in one kernel."""
        if not _has_loss(kind, logits, targets):
            return super().loss(kind, logits, targets, weights)
        self._check_loss(kind, logits, targets, weights)
        count = logits.shape[0]
        dlogits = self._cupy.empty(logits.shape, logits.dtype)
        image_losses = self._cupy.empty(count, logits.dtype)
        correct = self._cupy.empty(count, "int32")
        launcher = self._launcher(logits)
        logits, targets = self._in_c_order(logits), self._in_c_order(targets)
        if weights is not None:
            weights = self._in_c_order(weights)
        losses.loss(launcher, kind, logits, targets, weights, None, dlogits, image_losses, correct)
        return self.xp.sum(image_losses) / float(count), dlogits

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
        """Update the weights and the state in one kernel."""
        arrays = state_arrays(rule, state)
        require_vectors(weights, grads, state)
        if not _has_update(rule, weights, grads, *arrays):
            super().update(rule, weights, grads, state, lr=lr, step=step)
            return
        launcher, rates = self._launcher(weights), rule.rates(lr, step)
        updates.update(launcher, rule, weights, grads, arrays, rates)

    def _launcher(self, array: Array) -> Launcher:
        return self._launchers[str(array.dtype)]

    def _in_c_order(self, array: Array) -> Array:
        return self._cupy.ascontiguousarray(array)


def _has_convolution(x: Array, weight: Array, stride: int) -> bool:
    if not (has_kernel_dtype(x) and has_kernel_dtype(weight) and stride == 1):
        return False
    sides = set(weight.shape[2:])
    return len(weight.shape) == 4 and len(sides) == 1 and max(sides) <= convolution.MAX_KERNEL_SIZE


def _has_loss(kind: str, logits: Array, targets: Array) -> bool:
    accepted = (str(logits.dtype),) if kind == losses.NUMBERS else ("int32", "int64")
    has_dtypes = has_kernel_dtype(logits) and has_dtype(targets, *accepted)
    return kind in losses.LOSSES and has_dtypes


def _has_update(rule: UpdateRule, *arrays: Array) -> bool:
    if not COMPILED.has_rule(rule):
        return False
    dtypes = {str(array.dtype) for array in arrays}
    return len(dtypes) == 1 and dtypes <= set(REAL) and all(a.flags.c_contiguous for a in arrays)
