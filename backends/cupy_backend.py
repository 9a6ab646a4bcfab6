"""The GPU backend: CuPy, on every operation as it is composed.

Works with CuPy 13 and 14. CuPy is imported when a backend is asked for, never before: the import
takes a third of a second, and most machines have no GPU.
"""

import importlib
import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.availability import Availability
from backends.base import Backend, DeviceInfo
from backends.operations.common import Array

INSTALL = 'pip install "mnist-accel[cuda12]" (CUDA 12 driver) or "mnist-accel[cuda13]" (CUDA 13)'


class CupyBackend(Backend):
    """CuPy arrays on one NVIDIA GPU."""

    name = "cupy"

    def __init__(self) -> None:
        self.xp = importlib.import_module("array_api_compat.cupy")
        self._cupy = importlib.import_module("cupy")

    @classmethod
    def availability(cls) -> Availability:
        """Look for CuPy, a driver, a device and CUDA's libraries, then run a kernel and a product.

        Each has its own reason and remedy. Only the computation at the end proves that a GPU works.
        """
        if importlib.util.find_spec("cupy") is None:
            return Availability(ok=False, reason="CuPy is not installed", remedy=INSTALL)
        try:
            cupy = importlib.import_module("cupy")
        except Exception as error:  # a broken installation raises whatever it runs into
            return Availability(
                ok=False,
                reason=f"CuPy is installed but cannot be imported ({_first_line(error)})",
                remedy=f"reinstall it: {INSTALL}",
            )
        return (
            _driver_problem(cupy)
            or _library_problem(cupy)
            or _computation_problem(cupy)
            or Availability(ok=True, reason=_describe_device(cupy))
        )

    def asarray(self, host: NDArray[Any], *, dtype: str | None = None) -> Array:
        """Copy `host` to the device."""
        return self._cupy.array(host, dtype=dtype, order="C")

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Copy `array` to the host; waits for the work that computes it."""
        return np.asarray(self._cupy.asnumpy(array))

    def synchronize(self) -> None:
        """Wait for all work on the device."""
        self._cupy.cuda.Device().synchronize()

    def device_info(self) -> DeviceInfo:
        """Describe the GPU, its memory, the driver and the CUDA runtime."""
        cupy = self._cupy
        free, total = cupy.cuda.Device().mem_info
        runtime = cupy.cuda.runtime
        return DeviceInfo(
            name=_describe_device(cupy),
            memory_total_bytes=int(total),
            memory_free_bytes=int(free),
            libraries={
                "cupy": cupy.__version__,
                "cuda_driver": _cuda_version(runtime.driverGetVersion()),
                "cuda_runtime": _cuda_version(runtime.runtimeGetVersion()),
            },
        )


def _driver_problem(cupy: Any) -> Availability | None:
    """Return why no device can be reached through the driver, or None."""
    runtime = cupy.cuda.runtime
    driver = runtime.driverGetVersion()  # 0 where there is none; does not raise
    if driver == 0:
        return Availability(
            ok=False,
            reason="no NVIDIA driver was found",
            remedy="install the driver of the GPU; `nvidia-smi` must list it",
        )
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        code = str(error).partition(":")[0]
        if code == "cudaErrorInsufficientDriver":
            needed = runtime.runtimeGetVersion() // 1000
            return Availability(
                ok=False,
                reason=f"the driver supports CUDA {_cuda_version(driver)}, CuPy needs {needed}",
                remedy="update the driver, or install the CuPy of the driver's CUDA: " + INSTALL,
            )
        if code == "cudaErrorNoDevice":
            count = 0
        else:
            return Availability(
                ok=False,
                reason=f"the driver reports {_first_line(error)}",
                remedy="`nvidia-smi` must list the GPU without an error",
            )
    if count == 0:
        return Availability(
            ok=False,
            reason="the driver sees no GPU",
            remedy="check CUDA_VISIBLE_DEVICES, and that `nvidia-smi` lists the GPU",
        )
    return None


def _library_problem(cupy: Any) -> Availability | None:
    """Return which of CUDA's libraries cannot be loaded, or None."""
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    remedy = f'pip install "cupy-cuda{major}x[ctk]"'
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:  # RuntimeError in CuPy 13, a class of its own in 14
        return Availability(
            ok=False, reason=f"NVRTC cannot be loaded ({_first_line(error)})", remedy=remedy
        )
    try:
        importlib.import_module("cupy_backends.cuda.libs.cublas")
    except ImportError as error:
        return Availability(
            ok=False, reason=f"cuBLAS cannot be loaded ({_first_line(error)})", remedy=remedy
        )
    return None


def _computation_problem(cupy: Any) -> Availability | None:
    """Return what goes wrong in a small kernel and a small matrix product, or None."""
    try:
        x = cupy.arange(32, dtype=cupy.float32)
        product = float(((x + 1).reshape(1, 32) @ x.reshape(32, 1))[0, 0])
    except cupy.cuda.memory.OutOfMemoryError as error:
        return Availability(
            ok=False,
            reason=f"the GPU has no free memory ({_first_line(error)})",
            remedy="end what uses it; `nvidia-smi` lists the processes",
        )
    except Exception as error:  # compilation, launch and library errors of many classes
        return Availability(
            ok=False,
            reason=f"a test kernel failed ({type(error).__name__}: {_first_line(error)})",
            remedy="check that driver, CUDA and CuPy fit each other: " + INSTALL,
        )
    expected = float(sum((k + 1) * k for k in range(32)))
    if product != expected:
        return Availability(
            ok=False,
            reason=f"a test kernel returned {product}, expected {expected}",
            remedy="run NVIDIA's diagnostics; the GPU computes wrong results",
        )
    return None


def _describe_device(cupy: Any) -> str:
    """Return name and compute capability of the current device."""
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return f"{properties['name'].decode()}, sm_{properties['major']}{properties['minor']}"


def _cuda_version(number: int) -> str:
    """Return CUDA's version number, such as 12080, as "12.8"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
