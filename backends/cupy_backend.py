"""The GPU backend: CuPy, on every operation as it is composed.

Works with CuPy 13 and 14. CuPy is imported when a backend is asked for, never before: the import
takes a third of a second, and most machines have no GPU.
"""

import importlib
from typing import Any

from numpy.typing import NDArray

from backends.availability import Availability
from backends.base import Backend, DeviceInfo
from backends.cupy_probe import cuda_version, describe_device, probe
from backends.operations.common import Array


class CupyBackend(Backend):
    """CuPy arrays on one NVIDIA GPU."""

    name = "cupy"

    def __init__(self) -> None:
        self.xp = importlib.import_module("array_api_compat.cupy")
        self._cupy = importlib.import_module("cupy")

    @classmethod
    def availability(cls) -> Availability:
        """Go through all that CuPy needs; name the device, or what is missing first."""
        findings = {stage: finding for stage, finding in probe() if finding is not None}
        *_, last = findings.values()
        return findings["device"] if last.ok else last

    def asarray(self, host: NDArray[Any], *, dtype: str | None = None) -> Array:
        """Copy `host` to the device."""
        return self._cupy.array(host, dtype=dtype, order="C")

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Copy `array` to the host; waits for the work that computes it."""
        host: NDArray[Any] = self._cupy.asnumpy(array)
        return host

    def synchronize(self) -> None:
        """Wait for all work on the device."""
        self._cupy.cuda.runtime.deviceSynchronize()

    def device_info(self) -> DeviceInfo:
        """Describe the GPU, its memory, the driver and the CUDA runtime."""
        runtime = self._cupy.cuda.runtime
        _, total = runtime.memGetInfo()
        return DeviceInfo(
            name=describe_device(),
            memory_total_bytes=int(total),
            libraries={
                "cupy": self._cupy.__version__,
                "cuda_driver": cuda_version(runtime.driverGetVersion()),
                "cuda_runtime": cuda_version(runtime.runtimeGetVersion()),
            },
        )
