"""The CuPy adapter on the emulator: the real launches, the real kernels, no GPU."""

import importlib

import numpy as np

from backends import Availability, DeviceInfo
from backends.cupy.backend import CupyBackend
from tests.support.cuda_emulator.build import why_not
from tests.support.cuda_emulator.cupy import EmulatedCupy
from tests.support.cuda_emulator.module import Device


class EmulatedBackend(CupyBackend):
    """`CupyBackend`, with NumPy and the emulator in the place of CuPy and the GPU.

    Args:
        emulator: where kernels run; one of the backend's own if None.
        memory_bytes: what new arrays may take together.
        devices: how many GPUs there are to choose from.
        capability: compute capability of each of them.
        multiprocessors: of each of them.
    """

    name = "cupy-emulated"

    def __init__(
        self,
        emulator: Device | None = None,
        *,
        memory_bytes: int = 1 << 30,
        devices: int = 1,
        capability: str = "90",
        multiprocessors: int = 132,
    ) -> None:
        self.emulator = emulator or Device()
        cupy = EmulatedCupy(
            self.emulator,
            memory_bytes=memory_bytes,
            devices=devices,
            capability=capability,
            multiprocessors=multiprocessors,
        )
        self._use(cupy, importlib.import_module("array_api_compat.numpy"))

    @classmethod
    def availability(cls) -> Availability:
        if why_not():
            return Availability(False, why_not(), "run the tests on x86-64 Linux, with g++")
        return Availability(True, "emulated")

    def device_info(self) -> DeviceInfo:
        return DeviceInfo(f"emulated GPU {self.device or 0}", None, {"numpy": np.__version__})
