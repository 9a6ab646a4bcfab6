"""The CuPy backend on the CUDA emulator: its real launches and kernels, without a GPU."""

import numpy as np
from array_api_compat import numpy as array_namespace

from backends import Availability, DeviceInfo
from backends.cupy.backend import CupyBackend
from tests.support.cuda_emulator.build import unavailable_reason
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import Emulator


class EmulatedBackend(CupyBackend):
    """`CupyBackend` with NumPy and the emulator in place of CuPy and the GPU.

    Args:
        emulator: runs the kernels; a new one if None.
        memory_bytes: memory of the emulated GPU.
        devices: number of GPUs.
        capability: compute capability of each GPU.
        multiprocessors: number of multiprocessors of each GPU.
    """

    name = "cupy-emulated"

    def __init__(
        self,
        emulator: Emulator | None = None,
        *,
        memory_bytes: int = 1 << 30,
        devices: int = 1,
        capability: str = "90",
        multiprocessors: int = 132,
    ) -> None:
        self.emulator = emulator or Emulator()
        cupy = EmulatedCupy(
            self.emulator,
            memory_bytes=memory_bytes,
            devices=devices,
            capability=capability,
            multiprocessors=multiprocessors,
        )
        self._use(cupy, array_namespace)

    @classmethod
    def availability(cls) -> Availability:
        if reason := unavailable_reason():
            return Availability(False, reason, "run the tests on x86-64 Linux, with g++")
        return Availability(True, "emulated")

    def device_info(self) -> DeviceInfo:
        return DeviceInfo(
            f"emulated GPU {self.device or 'cuda:0'}", None, {"numpy": np.__version__}
        )
