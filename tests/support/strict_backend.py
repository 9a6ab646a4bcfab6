"""A backend on array-api-strict, which replaces CuPy in tests without a GPU.

Its arrays are on a simulated device. As with arrays on a GPU, NumPy functions, implicit conversions
to NumPy and operations that also take host arrays raise errors. The namespace has only the
functions of version 2023.12 of the array API standard; earlier versions lack `maximum`.
"""

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import Availability, Backend, DeviceInfo

_CREATE = frozenset({"arange", "asarray", "empty", "full", "ones", "zeros"})


class StrictBackend(Backend):
    """The composed defaults on array-api-strict."""

    name = "array-api-strict"

    def __init__(self) -> None:
        self._strict = importlib.import_module("array_api_strict")
        self._strict.set_array_api_strict_flags(
            api_version="2023.12",
            boolean_indexing=False,
            data_dependent_shapes=False,
            enabled_extensions=(),
        )
        self.xp = _Namespace(self._strict)

    @classmethod
    def availability(cls) -> Availability:
        try:
            strict = importlib.import_module("array_api_strict")
        except ImportError as error:
            return Availability(False, f"{error}", "pip install array-api-strict")
        return Availability(True, f"array-api-strict {strict.__version__}")

    def asarray(self, host: NDArray[Any], *, dtype: str | None = None) -> Any:
        return self.xp.asarray(np.array(host, dtype=dtype))

    def to_numpy(self, array: Any) -> NDArray[Any]:
        return np.array(array.to_device(self._strict.Device("CPU_DEVICE")))

    def synchronize(self) -> None:
        pass

    def device_info(self) -> DeviceInfo:
        return DeviceInfo("CPU", None, {"array-api-strict": self._strict.__version__})


class _Namespace:
    """The functions of the standard. As in CuPy, new arrays are on the device."""

    def __init__(self, strict: Any) -> None:
        self._strict = strict
        self._device = strict.Device("device1")

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._strict, name)
        if name not in _CREATE:
            return found
        return lambda *args, **options: found(*args, **{"device": self._device, **options})
