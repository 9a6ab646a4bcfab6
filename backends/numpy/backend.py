"""The NumPy backend: the composed operations on NumPy arrays."""

import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import array_api_compat.numpy
import numpy as np
from numpy.typing import NDArray

from backends.availability import Availability
from backends.base import Backend, DeviceInfo
from backends.names import option
from backends.numpy.blas_threads import BLAS_THREADS, blas_name
from backends.numpy.probe import availability
from backends.operations.common import TrustedIndices

# A multiple of the widths of OpenBLAS tiles, so that the tiles are those of a single product.
_ROWS = 24576


class NumpyBackend(Backend):
    """NumPy arrays on the CPU."""

    name = "numpy"

    def __init__(self) -> None:
        self.xp = array_api_compat.numpy
        self._blas = BLAS_THREADS

    @property
    def max_threads(self) -> int | None:
        """Maximum number of BLAS threads; nothing else is multi-threaded. None if BLAS sets it."""
        return self._blas.default()

    def take_threads(self, number: int) -> None:
        """Use at most this number of BLAS threads; warn if BLAS has no function to limit them."""
        if self.max_threads is None:
            warnings.warn(
                f"{option('threads', number)} cannot limit the backend numpy, because its BLAS, "
                f"{blas_name()}, has no function for that",
                stacklevel=2,
            )
        else:
            super().take_threads(number)

    @classmethod
    def availability(cls) -> Availability:
        """Return that NumPy is available."""
        return availability()

    def asarray(self, host: NDArray[Any], *, dtype: str | None = None) -> NDArray[Any]:
        """Return a copy of `host`."""
        return np.array(host, dtype=dtype, order="C")

    def to_numpy(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a copy of `array`."""
        return np.array(array, order="C")

    def synchronize(self) -> None:
        """Do nothing: NumPy operations are finished when they return."""

    def device_info(self) -> DeviceInfo:
        """Return the processor, the memory and the BLAS."""
        return DeviceInfo(
            name=f"{_processor_name()}, cores: {os.cpu_count()}",
            memory_total_bytes=_memory_bytes(),
            libraries={"numpy": np.__version__, "blas": blas_name()},
        )

    def _multiply(self, x: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
        """Return x W, computed for `_ROWS` rows at a time.

        OpenBLAS copies the rows of one product. For 60,000 images, each thread would keep 32 MB.
        """
        if len(x) <= _ROWS:
            return np.asarray(x @ weight)
        y = np.empty((len(x), weight.shape[1]), x.dtype)
        for start in range(0, len(x), _ROWS):
            rows = slice(start, start + _ROWS)
            np.matmul(x[rows], weight, out=y[rows])
        return y

    def _sum_taps(
        self,
        x: NDArray[Any],
        weight: NDArray[Any],
        *,
        output: tuple[int, int],
        stride: int,
        padding: int,
    ) -> NDArray[Any]:
        """Sum with `einsum`, which also adds in one order, but without temporary arrays."""
        out_channels, _, kh, kw = weight.shape
        columns = self.im2col(x, kernel_size=(kh, kw), stride=stride, padding=padding)
        y: NDArray[Any] = np.einsum("ok,nkp->nop", weight.reshape(out_channels, -1), columns)
        return y.reshape(len(x), out_channels, *output)

    def computation(self, kinds: frozenset[str]) -> AbstractContextManager[None]:
        """Limit the threads, and silence warnings of NumPy: training checks for overflow itself."""
        return self._limited(kinds) if kinds else nullcontext()

    @contextmanager
    def _limited(self, kinds: frozenset[str]) -> Iterator[None]:
        """Enter the context in which operations of these kinds run."""
        limited = self._blas.limit(self._blas_threads(kinds))
        with np.errstate(all="ignore"), TrustedIndices(), limited:
            yield

    def _blas_threads(self, kinds: frozenset[str]) -> int | None:
        """Return the maximum number of BLAS threads beside some operations; None for no limit."""
        return self.threads


def _processor_name() -> str:
    """Return the model of the CPU; `platform` does not know it on Linux."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except FileNotFoundError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    """Return the physical memory, or None if unknown."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on this system
        return None
