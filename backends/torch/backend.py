"""The PyTorch backend: the composed operations on tensors, on a CPU or a GPU of any vendor.

It compiles nothing. PyTorch is imported when a backend is created, so that the tests of the class
run without PyTorch.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.availability import Availability
from backends.base import Backend, DeviceInfo
from backends.operations.common import Array, TrustedIndices
from backends.torch.probe import availability


class TorchBackend(Backend):
    """PyTorch tensors on the device named `device`, by default the CPU."""

    name = "torch"
    # Median ratios of epochs in alternation, on digits with batches of 64 and PyTorch 2.13.
    eager_cost = (
        "an eager step on one CPU core takes 1.4 (two-layer) and 1.2 (lenet) times as long as with "
        "numpy, 4.2 and 11 times as long as compiled with numba"
    )

    def __init__(self) -> None:
        import array_api_compat.torch
        import torch

        self.xp = array_api_compat.torch
        self._torch = torch
        self._default_threads: int = torch.get_num_threads()

    @classmethod
    def availability(cls) -> Availability:
        """Return the version of PyTorch, or why it cannot run."""
        return availability()

    @property
    def max_threads(self) -> int | None:
        """Number of threads that PyTorch uses by default; None on a GPU."""
        return self._default_threads if self._on_cpu else None

    @property
    def devices(self) -> tuple[str, ...]:
        """The CPU, and the GPUs that PyTorch finds; AMD GPUs are called "cuda" as in PyTorch."""
        found = ["cpu"]
        for kind in ("cuda", "xpu"):
            library = getattr(self._torch, kind)
            if library.is_available():
                found += [f"{kind}:{number}" for number in range(library.device_count())]
        if self._torch.backends.mps.is_available():
            found.append("mps")
        return tuple(found)

    @contextmanager
    def computation(self, kinds: frozenset[str]) -> Iterator[None]:
        """Set the number of threads in this Python thread, and restore it at the end."""
        with TrustedIndices():
            if not self._on_cpu:
                yield
                return
            before = self._torch.get_num_threads()
            self._torch.set_num_threads(self.threads or self._default_threads)
            try:
                yield
            finally:
                self._torch.set_num_threads(before)

    def asarray(self, host: NDArray[Any], *, dtype: str | None = None) -> Array:
        """Copy `host` to the device, in C order.

        Raises:
            ValueError: the device is "mps" and the dtype float64.
        """
        host = np.array(host, dtype=dtype, order="C")
        if self.device == "mps" and host.dtype == np.float64:
            raise ValueError(
                "device mps has no float64, because Apple GPUs do not compute in it; use dtype "
                "float32 or the device cpu"
            )
        return self._torch.from_numpy(host).to(self.device or "cpu")

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Copy `array` to the host; wait until it is computed."""
        return np.array(array.numpy(force=True), order="C")

    def synchronize(self) -> None:
        """Wait for all work on the device; operations on the CPU are finished when they return."""
        if self.device == "mps":
            self._torch.mps.synchronize()
        elif not self._on_cpu:
            getattr(self._torch, str(self.device).partition(":")[0]).synchronize(self.device)

    def device_info(self) -> DeviceInfo:
        """Return the name of the processor, and the version of PyTorch."""
        libraries = {"torch": str(self._torch.__version__)}
        if self._on_cpu:
            return DeviceInfo(platform.processor() or platform.machine(), None, libraries)
        if self.device == "mps":
            return DeviceInfo("Apple GPU", None, libraries)
        library = getattr(self._torch, str(self.device).partition(":")[0])
        properties = library.get_device_properties(self.device)
        return DeviceInfo(str(properties.name), int(properties.total_memory), libraries)

    @property
    def _on_cpu(self) -> bool:
        return self.device in (None, "cpu")
