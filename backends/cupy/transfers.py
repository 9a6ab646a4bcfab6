"""Arrays that one copy moves between the host and the device."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.operations.common import Array

Layout: TypeAlias = tuple[tuple[int, ...], str]  # shape and dtype

_ALIGNMENT = 16  # bytes; kernels read up to 16 bytes at once


class Transfer:
    """Arrays in one piece of device memory, and their counterparts in pinned host memory.

    The driver copies pinned memory without a wait on the host, and one copy of all arrays takes
    hardly longer than one of a few bytes.

    Args:
        cupy: the module `cupy`.
        arrays: shape and dtype of each array, by name.

    Attributes:
        device: the arrays on the device, by name.
        host: the arrays on the host, by name.
    """

    def __init__(self, cupy: Any, **arrays: Layout) -> None:
        self._begins: dict[str, int] = {}
        end = 0
        for name, (shape, dtype) in arrays.items():
            self._begins[name] = -(-end // _ALIGNMENT) * _ALIGNMENT
            end = self._begins[name] + int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._device = cupy.empty(end, "uint8")
        pinned = cupy.cuda.alloc_pinned_memory(end)
        self._host: NDArray[np.uint8] = np.ndarray(end, np.uint8, buffer=pinned)
        self.device: dict[str, Array] = self._views(self._device, arrays)
        self.host: dict[str, NDArray[Any]] = self._views(self._host, arrays)

    def upload(self, *, rows: int | None = None) -> None:
        """Copy all arrays to the device, on the current stream.

        Args:
            rows: rows of the last array that are copied; None for all.
        """
        size = self._size(rows)
        self._device.data.copy_from_host_async(self._host.ctypes.data, size)

    def download(self, *, rows: int | None = None) -> None:
        """Copy all arrays to the host, on the current stream; arguments as `upload`.

        They have arrived after the stream is synchronized.
        """
        size = self._size(rows)
        self._device.data.copy_to_host_async(self._host.ctypes.data, size)

    def _size(self, rows: int | None) -> int:
        """Return the number of bytes to copy."""
        if rows is None:
            return len(self._host)
        name, begin = list(self._begins.items())[-1]
        return begin + int(self.host[name][:rows].nbytes)

    def _views(self, block: Any, arrays: dict[str, Layout]) -> dict[str, Any]:
        """Return the arrays in a block of bytes, by name."""
        views = {}
        for name, (shape, dtype) in arrays.items():
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            begin = self._begins[name]
            views[name] = block[begin : begin + size].view(dtype).reshape(shape)
        return views
