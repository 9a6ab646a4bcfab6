"""What the adapter uses of CuPy, on NumPy arrays and the emulator."""

import functools
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.support.cuda_emulator.module import CompileException, Device, RawModule


class OutOfMemoryError(MemoryError):
    """The device has no room for an array."""


class DeviceArray(np.ndarray[Any, Any]):
    """An array that says where it lies as CuPy's do."""

    @property
    def data(self) -> SimpleNamespace:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)


class EmulatedCupy:
    """Stands in for the module `cupy`.

    New memory holds NaN, so that a kernel that leaves out a number is found.

    Args:
        device: where kernels run.
        memory_bytes: what arrays may take together, but for results that NumPy computes.
        devices: how many GPUs there are to select.
        capability: compute capability of each of them.
        multiprocessors: of each of them.
    """

    def __init__(
        self,
        device: Device,
        *,
        memory_bytes: int = 1 << 30,
        devices: int = 1,
        capability: str = "90",
        multiprocessors: int = 132,
    ) -> None:
        self._device = device
        self._free_bytes = memory_bytes
        self.cuda = SimpleNamespace(
            Device=functools.partial(SelectedDevice, device, capability, multiprocessors),
            Stream=lambda non_blocking: Stream(device, non_blocking=non_blocking),
            get_current_stream=lambda: Stream(device, non_blocking=False),
            compiler=SimpleNamespace(CompileException=CompileException),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=SimpleNamespace(
                deviceSynchronize=lambda: _refuse_while_capturing(device, "waits"),
                getDeviceCount=lambda: devices,
                memGetInfo=lambda: (self._free_bytes, memory_bytes),
            ),
        )

    def RawModule(self, **options: Any) -> RawModule:  # noqa: N802 - the name that CuPy has for it
        return RawModule(device=self._device, **options)

    def asnumpy(self, array: Any) -> Any:
        _refuse_while_capturing(self._device, "copies to the host")
        return np.array(array)

    def array(self, host: Any, **options: Any) -> Any:
        _refuse_while_capturing(self._device, "allocates")
        return self._place(np.array(host, **options))

    asarray = array

    def zeros(self, shape: Any, dtype: Any) -> Any:
        _refuse_while_capturing(self._device, "allocates")
        return self._place(np.zeros(shape, dtype).view(DeviceArray))

    def ascontiguousarray(self, array: Any) -> Any:
        return array if array.flags.c_contiguous else self.array(array, order="C")

    def empty(self, shape: Any, dtype: Any) -> Any:
        _refuse_while_capturing(self._device, "allocates")
        array = self._place(np.empty(shape, dtype).view(DeviceArray))
        array.reshape(-1).view(np.uint8)[...] = 0xFF
        return array

    def _place(self, array: Any) -> Any:
        """Take memory for an array for as long as it lives."""
        if array.nbytes > self._free_bytes:
            raise OutOfMemoryError(f"Out of memory allocating {array.nbytes} bytes")
        self._free_bytes -= array.nbytes
        weakref.finalize(array, self._give_back, array.nbytes)
        return array

    def get_default_memory_pool(self) -> SimpleNamespace:
        return SimpleNamespace(free_bytes=lambda: 0)

    def _give_back(self, count: int) -> None:
        self._free_bytes += count


def _refuse_while_capturing(device: Device, verb: str) -> None:
    """Use a device for what a graph cannot hold."""
    device.use()
    if device.recorded is not None:
        raise AssertionError(f"{verb} while a graph is captured: CUDA refuses, or forgets it")


class SelectedDevice:
    """One of the GPUs; which one is a number, and all are the same."""

    def __init__(
        self, device: Device, capability: str, multiprocessors: int, number: int = 0
    ) -> None:
        self.compute_capability = capability
        self.attributes = {"MultiProcessorCount": multiprocessors}
        self._device = device
        self._number = number

    def __enter__(self) -> None:
        self._before, self._device.selected = self._device.selected, self._number

    def __exit__(self, *error: object) -> None:
        self._device.selected = self._before


class Stream:
    """A queue of launches; here each is done when it is put in."""

    def __init__(self, device: Device, *, non_blocking: bool) -> None:
        device.use()
        self._device = device
        self._captures = non_blocking  # the stream of all others cannot

    def __enter__(self) -> "Stream":
        self._device.streams.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._device.streams.pop() is self

    def synchronize(self) -> None:
        _refuse_while_capturing(self._device, "waits")

    def begin_capture(self) -> None:
        assert self._captures
        assert self._device.recorded is None
        self._device.recorded = []
        self._device.capturing = self

    def end_capture(self) -> "Graph":
        recorded, self._device.recorded = self._device.recorded, None
        self._device.capturing = None
        assert recorded is not None
        return Graph(recorded)


class Graph:
    """Launches that were captured."""

    def __init__(self, launches: list[Any]) -> None:
        self._launches = launches

    def launch(self, stream: Stream) -> None:
        del stream
        for launch in self._launches:
            launch()
