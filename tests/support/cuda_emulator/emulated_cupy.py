"""The parts of CuPy that the backend uses, on NumPy arrays and the emulator."""

import ctypes
import functools
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.support.cuda_emulator.raw_module import CompileException, Emulator, RawModule


class OutOfMemoryError(MemoryError):
    """An allocation exceeds the free memory of the emulated GPU."""


class DeviceMemory:
    """`cupy.cuda.MemoryPointer`: an address, and copies to and from the host."""

    def __init__(self, ptr: int, emulator: Emulator) -> None:
        self.ptr = ptr
        self._emulator = emulator

    def copy_from_host_async(self, mem: int, size: int) -> None:
        self._copy(self.ptr, mem, size)

    def copy_to_host_async(self, mem: int, size: int) -> None:
        self._copy(mem, self.ptr, size)

    def _copy(self, target: int, source: int, size: int) -> None:
        copy = functools.partial(ctypes.memmove, target, source, size)
        self._emulator.enqueue(copy, self._emulator.current_stream)


class DeviceArray(np.ndarray[Any, Any]):
    """An array with the attribute `data` of CuPy's arrays."""

    emulator: Emulator

    def __array_finalize__(self, other: Any) -> None:
        if isinstance(other, DeviceArray) and hasattr(other, "emulator"):
            self.emulator = other.emulator

    @property
    def data(self) -> DeviceMemory:  # type: ignore[override]
        return DeviceMemory(self.ctypes.data, self.emulator)


class EmulatedCupy:
    """Replaces the module `cupy`.

    New memory holds NaN, so that an element that a kernel fails to write shows in the results.

    Args:
        emulator: runs the kernels.
        memory_bytes: memory of the GPU; results that NumPy computes are not counted.
        devices: number of GPUs.
        capability: compute capability of each GPU.
        multiprocessors: number of multiprocessors of each GPU.
    """

    def __init__(
        self,
        emulator: Emulator,
        *,
        memory_bytes: int = 1 << 30,
        devices: int = 1,
        capability: str = "90",
        multiprocessors: int = 132,
    ) -> None:
        self._emulator = emulator
        self._free_bytes = memory_bytes
        as_strided = functools.partial(np.lib.stride_tricks.as_strided, subok=True)
        self.lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=as_strided))
        self.cuda = SimpleNamespace(
            Device=functools.partial(EmulatedDevice, emulator, capability, multiprocessors),
            Stream=lambda non_blocking: Stream(emulator, non_blocking=non_blocking),
            get_current_stream=lambda: (
                emulator.current_stream or Stream(emulator, non_blocking=False)
            ),
            alloc_pinned_memory=lambda size: bytearray(b"\xff" * size),
            compiler=SimpleNamespace(CompileException=CompileException),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=SimpleNamespace(
                deviceSynchronize=lambda: _refuse_during_capture(emulator, "synchronization"),
                getDeviceCount=lambda: devices,
                memGetInfo=lambda: (self._free_bytes, memory_bytes),
            ),
        )

    def RawModule(self, **options: Any) -> RawModule:  # noqa: N802 - CuPy's name
        return RawModule(emulator=self._emulator, **options)

    def asnumpy(self, array: Any) -> Any:
        _refuse_during_capture(self._emulator, "copy to the host")
        return np.array(array)

    def array(self, host: Any, **options: Any) -> Any:
        return self._allocate(lambda: np.array(host, **options).view(DeviceArray))

    asarray = array

    def zeros(self, shape: Any, dtype: Any) -> Any:
        return self._allocate(lambda: np.zeros(shape, dtype).view(DeviceArray))

    def isfinite(self, array: Any) -> Any:
        return np.isfinite(array)

    def ascontiguousarray(self, array: Any) -> Any:
        return array if array.flags.c_contiguous else self.array(array, order="C")

    def empty(self, shape: Any, dtype: Any) -> Any:
        array = self._allocate(lambda: np.empty(shape, dtype).view(DeviceArray))
        array.reshape(-1).view(np.uint8)[...] = 0xFF
        return array

    def get_default_memory_pool(self) -> SimpleNamespace:
        return SimpleNamespace(free_bytes=lambda: 0)

    def _allocate(self, create: Callable[[], Any]) -> Any:
        """Return a new array; its bytes are not free until it is deleted."""
        _refuse_during_capture(self._emulator, "allocation")
        array = create()
        array.emulator = self._emulator
        if array.nbytes > self._free_bytes:
            raise OutOfMemoryError(f"Out of memory allocating {array.nbytes} bytes")
        self._free_bytes -= array.nbytes
        weakref.finalize(array, self._free, array.nbytes)
        return array

    def _free(self, count: int) -> None:
        self._free_bytes += count


def _refuse_during_capture(emulator: Emulator, action: str) -> None:
    """Fail if a graph is being captured; record that the selected GPU was used."""
    emulator.mark_used()
    if emulator.captured is not None:
        raise AssertionError(f"{action} during graph capture, which a graph cannot contain")


class EmulatedDevice:
    """`cupy.cuda.Device`. All emulated GPUs have the same properties."""

    def __init__(
        self, emulator: Emulator, capability: str, multiprocessors: int, number: int | None = None
    ) -> None:
        self.compute_capability = capability
        self.attributes = {"MultiProcessorCount": multiprocessors}
        self._emulator = emulator
        self.id = emulator.selected_device if number is None else number

    def __enter__(self) -> None:
        self._previous = self._emulator.selected_device
        self._emulator.selected_device = self.id

    def __exit__(self, *error: object) -> None:
        self._emulator.selected_device = self._previous


class Stream:
    """`cupy.cuda.Stream`.

    Attributes:
        waiting: launches and copies that wait for `synchronize`, if the emulator is late.
    """

    def __init__(self, emulator: Emulator, *, non_blocking: bool) -> None:
        emulator.mark_used()
        self.waiting: list[Callable[[], object]] = []
        self._emulator = emulator
        self._can_capture = non_blocking  # CUDA refuses to capture the default stream

    def __enter__(self) -> "Stream":
        self._emulator.streams.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._emulator.streams.pop() is self

    def synchronize(self) -> None:
        _refuse_during_capture(self._emulator, "synchronization")
        waiting, self.waiting = self.waiting, []
        for work in waiting:
            work()

    def begin_capture(self) -> None:
        assert self._can_capture
        assert self._emulator.captured is None
        self._emulator.captured = []
        self._emulator.capturing_stream = self

    def end_capture(self) -> "Graph":
        captured, self._emulator.captured = self._emulator.captured, None
        self._emulator.capturing_stream = None
        assert captured is not None
        return Graph(captured, self._emulator)


class Graph:
    """`cupy.cuda.Graph`: captured launches."""

    def __init__(self, launches: list[Callable[[], None]], emulator: Emulator) -> None:
        self._launches = launches
        self._emulator = emulator

    def launch(self, stream: Stream) -> None:
        for launch in self._launches:
            self._emulator.enqueue(launch, stream)
