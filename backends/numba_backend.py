"""The compiled CPU backend: NumPy, with Numba kernels for convolution and pooling.

Numba is imported when the first kernel is needed, never before. Compiled code is cached on disk, so
only the first run on a machine waits for the compiler.
"""

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from backends.availability import Availability
from backends.base import DeviceInfo
from backends.numpy_backend import NumpyBackend
from backends.operations.common import Ties, check_pooling, output_size, require_same_dtype

REMEDY = "pip install --upgrade numba numpy (each Numba release supports a range of NumPy releases)"

COMPILED_KINDS = frozenset({"conv2d", "max_pool2d", "avg_pool2d"})


class NumbaBackend(NumpyBackend):
    """NumPy arrays on the CPU, with convolution and pooling compiled by Numba."""

    name = "numba"

    def __init__(self) -> None:
        super().__init__()
        self._convolution = importlib.import_module("backends.numba_kernels.convolution")
        self._pooling = importlib.import_module("backends.numba_kernels.pooling")
        self._parallel = importlib.import_module("backends.numba_kernels.parallel")
        self._blas = threadpoolctl.ThreadpoolController().select(user_api="blas")

    @classmethod
    def availability(cls) -> Availability:
        """Import Numba, which refuses NumPy releases that it does not know."""
        if importlib.util.find_spec("numba") is None:
            return Availability(ok=False, reason="Numba is not installed", remedy=REMEDY)
        try:
            numba = importlib.import_module("numba")
        except Exception as error:  # ImportError, but also what a broken llvmlite raises
            return Availability(
                ok=False, reason=f"Numba cannot be imported ({error})", remedy=REMEDY
            )
        return Availability(
            ok=True,
            reason=f"Numba {numba.__version__}, {numba.config.NUMBA_NUM_THREADS} threads",
        )

    @contextmanager
    def computation(self, kinds: frozenset[str]) -> Iterator[None]:
        """Bound the threads of BLAS while kernels of ours use the cores.

        The two pools do not know of each other. An idle thread of OpenBLAS waits by spinning, and
        takes its core from a kernel: a step of a CNN takes twice as long. Networks without
        convolution and pooling leave the cores to BLAS.
        """
        with super().computation(kinds):
            if kinds & COMPILED_KINDS:
                with self._blas.limit(limits=1):
                    yield
            else:
                yield

    def device_info(self) -> DeviceInfo:
        """Describe the processor, the memory and the libraries."""
        numba = importlib.import_module("numba")
        info = super().device_info()
        libraries = {**info.libraries, "numba": numba.__version__}
        return DeviceInfo(info.name, info.memory_total_bytes, info.memory_free_bytes, libraries)

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
        if stride != 1 or x.shape[1] != weight.shape[1]:
            composed: NDArray[Any] = super().conv2d(
                x, weight, bias, stride=stride, padding=padding, uniform=uniform
            )
            return composed
        require_same_dtype("conv2d", x=x, weight=weight, bias=bias)
        y = np.empty(self._conv2d_shape(x, weight, padding=padding), x.dtype)
        if bias is None:
            bias = np.zeros(weight.shape[0], x.dtype)
        x = self._padded(x, padding)
        weight = np.ascontiguousarray(weight)
        self._run(self._convolution, "conv2d", x, weight, bias, y)
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
        height, width = x.shape[2:]
        x = self._padded(x, padding)
        weight = np.ascontiguousarray(weight)
        dy = np.ascontiguousarray(dy)
        dx = np.empty(x.shape if need_dx else (0, *x.shape[1:]), x.dtype)
        dweight = np.empty_like(weight)
        dbias = np.empty(weight.shape[0], weight.dtype)
        self._run(self._convolution, "conv2d_backward", dy, x, weight, dx, dweight, dbias)
        if not need_dx:
            return None, dweight, dbias
        return dx[:, :, padding : padding + height, padding : padding + width], dweight, dbias

    def max_pool2d(
        self, x: NDArray[Any], *, size: int, stride: int, ties: Ties
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Pool with the compiled kernel."""
        check_pooling(size, ties)
        y = np.empty(_pooled_shape(x.shape, size=size, stride=stride), x.dtype)
        mask = np.empty(y.shape, np.uint8 if size * size <= 8 else np.int64)
        x = np.ascontiguousarray(x)
        self._run(self._pooling, "max_pool2d", x, size, stride, ties == "all", y, mask)
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
        dx = np.empty(x_shape, dy.dtype)
        dy = np.ascontiguousarray(dy)
        mask = np.ascontiguousarray(mask)
        self._run(self._pooling, "max_pool2d_backward", dy, mask, size, stride, dx)
        return dx

    def avg_pool2d(self, x: NDArray[Any], *, size: int, stride: int) -> NDArray[Any]:
        """Average with the compiled kernel."""
        check_pooling(size)
        y = np.empty(_pooled_shape(x.shape, size=size, stride=stride), x.dtype)
        x = np.ascontiguousarray(x)
        self._run(self._pooling, "avg_pool2d", x, size, stride, y)
        return y

    def avg_pool2d_backward(
        self, dy: NDArray[Any], *, x_shape: tuple[int, int, int, int], size: int, stride: int
    ) -> NDArray[Any]:
        """Spread the gradient with the compiled kernel."""
        dx = np.empty(x_shape, dy.dtype)
        dy = np.ascontiguousarray(dy)
        self._run(self._pooling, "avg_pool2d_backward", dy, size, stride, dx)
        return dx

    def _run(self, kernels: ModuleType, name: str, *arrays: Any) -> None:
        """Run a kernel on a batch; the first of `arrays` says how many images it has.

        A batch of a single chunk is too small to wake other threads for.
        """
        images = arrays[0].shape[0]
        if images <= self._parallel.IMAGES_PER_CHUNK:
            getattr(kernels, f"{name}_chunk")(*arrays, 0, images)
        else:
            with self._parallel.one_parallel_kernel_at_a_time:
                getattr(kernels, f"{name}_batch")(*arrays)

    def _padded(self, x: NDArray[Any], padding: int) -> NDArray[Any]:
        """Return `x` in C order, as the kernels take it, with its border of zeros."""
        return np.ascontiguousarray(self._pad(x, padding) if padding else x)

    def _conv2d_shape(
        self, x: NDArray[Any], weight: NDArray[Any], *, padding: int
    ) -> tuple[int, int, int, int]:
        """Return the shape of the feature maps of a convolution of stride 1."""
        n, _, height, width = x.shape
        out_channels, _, kh, kw = weight.shape
        oh = output_size(height, kh, stride=1, padding=padding)
        ow = output_size(width, kw, stride=1, padding=padding)
        return n, out_channels, oh, ow


def _pooled_shape(x_shape: tuple[int, ...], *, size: int, stride: int) -> tuple[int, int, int, int]:
    """Return the shape of pooled images."""
    n, channels, height, width = x_shape
    oh = output_size(height, size, stride=stride)
    ow = output_size(width, size, stride=stride)
    return n, channels, oh, ow
