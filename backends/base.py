"""The interface of a backend.

A backend combines an array library that follows the Python array API standard (`xp`) with
operations on its arrays. The default of every operation uses only `xp`. So a new backend is one
file: a subclass of `Backend` that sets `xp` and defines the abstract methods below. It can override
an operation that the library or a new kernel computes faster, and return `super().op(...)` for
arguments that the faster form does not support. `backends.register`, or an entry point of the group
`mnist_accel.backends`, makes it available by name.

Backends are passed as arguments; there is no global or current backend.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from backends.availability import Availability, BackendUnavailableError
from backends.names import option
from backends.operations.activations import Activations
from backends.operations.batches import Batches
from backends.operations.common import Array
from backends.operations.convolution import Convolution
from backends.operations.linear import Linear
from backends.operations.losses import Losses
from backends.operations.pooling import Pooling
from backends.operations.updates import Updates
from backends.program import (
    CompiledEpoch,
    CompiledInference,
    NotCompiledError,
    Program,
    TrainingProgram,
)


@dataclass(frozen=True)
class DeviceInfo:
    """The device of a backend.

    Attributes:
        name: the processor, such as "NVIDIA H200" or "AMD EPYC, 2 cores".
        memory_total_bytes: memory of the device; None if unknown.
        libraries: name and version of each library that computes, at least one. Runs and benchmarks
            record them.
    """

    name: str
    memory_total_bytes: int | None
    libraries: dict[str, str]


class Backend(Losses, Activations, Batches, Convolution, Linear, Pooling, Updates, ABC):
    """An array library, and the operations of a neural network on its arrays.

    A subclass has a constructor without arguments that sets `xp`.

    Attributes:
        name: name of the backend, such as "numpy".
        eager_cost: how the time of eager steps compares with that of other backends, as text.
        xp: namespace of the Python array API standard; operations take and return its arrays.
        threads: maximum number of CPU threads, from the next computation on; None for the default.
            Has an effect only if `max_threads` is a number.
        device: name of the device, as given to `take_device`; None for the library's choice.
    """

    name: ClassVar[str]
    eager_cost: ClassVar[str] = ""
    threads: int | None = None
    device: str | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Backend":
        """Return the backend itself, so that copies of networks share its threads."""
        return self

    @property
    def max_threads(self) -> int | None:
        """Maximum number of CPU threads by default; None if it cannot be set."""
        return None

    def take_threads(self, number: int) -> None:
        """Use at most this number of CPU threads, from the next computation on.

        Raises:
            ValueError: the number cannot be set.
        """
        if self.max_threads is None:
            raise ValueError(
                f"backend {self.name!r} does not take a number of threads, got {number}; "
                "leave it out"
            )
        self.threads = number

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the devices to choose from, such as "cuda:0"; empty if there is no choice."""
        return ()

    def take_device(self, name: str) -> None:
        """Select the device to compute on; must be called before the first array is created.

        Raises:
            ValueError: the backend has no choice of devices.
            BackendUnavailableError: this machine has no device with this name.
        """
        devices = self.devices
        if not devices:
            raise ValueError(
                f"backend {self.name!r} does not take a device, got {name}; leave it out"
            )
        if name not in devices:
            known = " and ".join(filter(None, (", ".join(devices[:-1]), devices[-1])))
            reason = f"it has no device {name}, only {known}"
            remedy = f"choose another {option('device')}"
            raise BackendUnavailableError(self.name, Availability(False, reason, remedy))
        self.device = name

    @classmethod
    @abstractmethod
    def availability(cls) -> Availability:
        """Return whether the backend can run here, after a small computation; never raise."""

    @abstractmethod
    def asarray(self, host: NDArray[Any], *, dtype: str | None = None) -> Array:
        """Copy a NumPy array to the device, converted to the dtype named `dtype` if given."""

    @abstractmethod
    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Copy an array of this backend to a new NumPy array of the same shape and dtype."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has finished all work, so that a clock measures it."""

    @abstractmethod
    def device_info(self) -> DeviceInfo:
        """Return the device and the libraries."""

    def computation(self, kinds: frozenset[str]) -> AbstractContextManager[None]:
        """Enter the context in which operations run, for example some training steps.

        A backend selects its device here, limits thread pools, and silences warnings about values
        that the caller checks itself. By default this does nothing. The built-in backends do not
        check here that labels and row numbers are in range; the caller has done so.

        Args:
            kinds: names of the operations that will run, such as "conv2d"; empty if arrays are
                only copied, or compiled code runs.
        """
        return nullcontext()

    @property
    def compile_seconds(self) -> float:
        """Seconds that compiling takes before the first training here; 0 if it is done already."""
        return 0.0

    @property
    def compiles_epochs(self) -> bool:
        """Whether this backend compiles epochs of some networks."""
        return type(self).compile_epoch is not Backend.compile_epoch

    def compile_epoch(self, program: TrainingProgram) -> CompiledEpoch:
        """Return the program in a form that runs many steps in one call.

        The methods of the result must be called inside `computation`, like the operations.

        Raises:
            NotCompiledError: this backend runs it eagerly; the message has the reason.
        """
        raise NotCompiledError(f"the backend {self.name} has no compiled epochs")

    def compile_inference(self, program: Program) -> CompiledInference:
        """Return the program in a form that predicts in one call.

        Raises:
            NotCompiledError: this backend runs it eagerly; the message has the reason.
        """
        raise NotCompiledError(f"the backend {self.name} has no compiled predictions")

    def zeros(self, shape: tuple[int, ...], *, dtype: str) -> Array:
        """Return zeros of `shape` in the dtype named `dtype`."""
        return self.asarray(np.zeros(shape, dtype=dtype))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
