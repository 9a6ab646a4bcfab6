"""Arrays that one copy moves between the host and the device."""

from functools import cached_property
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
        memory: a `Memory`, which allocates the arrays of each member.
        arrays: shape and dtype of each array, by name.
    """

    def __init__(self, memory: Any, **arrays: Layout) -> None:
        self._memory = memory
        self._arrays = arrays
        self._begins: dict[str, int] = {}
        end = 0
        for name, (shape, dtype) in arrays.items():
            self._begins[name] = end
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            end += -(-size // _ALIGNMENT) * _ALIGNMENT
        self._bytes = end
        self._device: Array = memory.empty(end, "uint8")

    @cached_property
    def device(self) -> dict[str, Array]:
        """The arrays of the first member on the device, by name."""
        return {name: views[0] for name, views in self._views(self._device[None]).items()}

    @cached_property
    def host(self) -> dict[str, NDArray[Any]]:
        """The arrays of all members on the host (members, …), by name."""
        return self._views(self._host)

    @cached_property
    def _host(self) -> NDArray[np.uint8]:
        shape = self._memory.members, self._bytes
        return np.ndarray(shape, np.uint8, buffer=self._memory.pinned(shape[0] * shape[1]))

    def upload(self, members: int = 1, *, last: str | None = None, rows: int | None = None) -> None:
        """Copy the arrays up to `last` to the device, on the current stream.

        Args:
            members: number of members whose arrays are copied.
            last: name of the last array that is copied; None for all arrays.
            rows: rows of this array that are copied; None for all.
        """
        end = self._end(last or list(self._begins)[-1], rows)
        for host, device in zip(self._host, self._members(members), strict=False):
            device.data.copy_from_host_async(host.ctypes.data, end)

    def download(
        self, members: int = 1, *, first: str | None = None, rows: int | None = None
    ) -> None:
        """Copy the arrays from `first` on to the host, on the current stream.

        They have arrived after the stream is synchronized.

        Args:
            members: number of members whose arrays are copied.
            first: name of the first array that is copied; None for all arrays.
            rows: rows of the last array that are copied; None for all.
        """
        begin = self._begins[first] if first else 0
        size = self._end(list(self._begins)[-1], rows) - begin
        for host, device in zip(self._host, self._members(members), strict=False):
            device[begin:].data.copy_to_host_async(host[begin:].ctypes.data, size)

    def _members(self, count: int) -> list[Array]:
        """Return the piece of device memory of each member."""
        if count == 1:
            return [self._device]
        return list(self._memory.of_all(self._device)[:count])

    def _end(self, name: str, rows: int | None) -> int:
        """Return the offset of the end of an array, or of its first rows."""
        return self._begins[name] + int(self.host[name][0, :rows].nbytes)

    def _views(self, block: Any) -> dict[str, Any]:
        """Return the arrays (members, …) in a block of bytes (members, bytes), by name."""
        views = {}
        for name, (shape, dtype) in self._arrays.items():
            begin, size = self._begins[name], int(np.prod(shape)) * np.dtype(dtype).itemsize
            views[name] = block[:, begin : begin + size].view(dtype).reshape(len(block), *shape)
        return views
