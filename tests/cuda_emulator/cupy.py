"""What the adapter uses of CuPy, on NumPy arrays and the emulator."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from cuda_emulator.module import CompileException, RawModule, Schedule


class EmulatedCupy:
    """Stands in for the module `cupy`.

    New memory holds NaN, so that a kernel that leaves out a number is found.

    Args:
        schedule: how kernels run; may be changed between launches.
        sanitize: watch all accesses to memory; the process must have loaded AddressSanitizer.

    Attributes:
        launched: names of the kernels that were launched, in their order.
    """

    __version__ = np.__version__

    def __init__(self, schedule: Schedule, *, sanitize: bool = False) -> None:
        self.launched: list[str] = []
        self._options = {"schedule": schedule, "sanitize": sanitize, "launched": self.launched}
        self.cuda = SimpleNamespace(
            compiler=SimpleNamespace(CompileException=CompileException),
            runtime=SimpleNamespace(deviceSynchronize=lambda: None),
        )

    array = staticmethod(np.array)
    ascontiguousarray = staticmethod(np.ascontiguousarray)
    zeros = staticmethod(np.zeros)

    def RawModule(self, **options: Any) -> RawModule:  # noqa: N802 - the name that CuPy has for it
        return RawModule(**self._options, **options)

    def asnumpy(self, array: Any) -> Any:
        return np.array(array)

    def empty(self, shape: Any, dtype: Any) -> Any:
        array = np.empty(shape, dtype)
        array.reshape(-1).view(np.uint8)[...] = 0xFF
        return array
