"""A backend on PyTorch, written as the author of a plug-in would write it."""

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import Availability, Backend, DeviceInfo


class TorchBackend(Backend):
    """The composed operations on PyTorch tensors, on the CPU."""

    name = "torch"

    def __init__(self) -> None:
        self.xp = importlib.import_module("array_api_compat.torch")
        self.xp.torch.set_num_threads(1)  # the arrays of the tests are too small for more

    @classmethod
    def availability(cls) -> Availability:
        try:
            torch = importlib.import_module("torch")
        except ImportError as error:
            return Availability(False, f"{error}", "pip install torch")
        return Availability(True, f"PyTorch {torch.__version__}")

    def asarray(self, host: NDArray[Any], *, dtype: str | None = None) -> Any:
        return self.xp.from_numpy(np.array(host, dtype=dtype, order="C"))

    def to_numpy(self, array: Any) -> NDArray[Any]:
        return np.array(array.numpy())

    def synchronize(self) -> None:
        pass

    def device_info(self) -> DeviceInfo:
        return DeviceInfo("CPU", None, {"torch": self.xp.torch.__version__})
