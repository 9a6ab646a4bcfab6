"""array-api-strict as a backend: it stands in for CuPy on machines without a GPU.

Arrays lie on a device other than the host's, so that, as on a GPU, a NumPy function on one of them,
an implicit conversion or a mixture of the two fails. Beyond that, only what version 2023.12 of the
array API standard promises exists; earlier versions lack `maximum`.
"""

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import Availability, Backend, DeviceInfo

_CREATE = frozenset({"arange", "asarray", "empty", "full", "ones", "zeros"})


class StrictBackend(Backend):
    """The composed operations, on nothing but the standard."""

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
    """The standard's namespace, whose new arrays lie on the device, as those of CuPy do."""

    def __init__(self, strict: Any) -> None:
        self._strict = strict
        self._device = strict.Device("device1")

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._strict, name)
        if name not in _CREATE:
            return found
        return lambda *args, **options: found(*args, device=self._device, **options)
