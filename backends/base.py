"""The contract of a backend.

A backend is an array library behind the Python array API standard (`xp`), plus whatever operations
the library, or we, can do faster than the standard allows. The abstract methods below are all that
a new backend must write; the operations it inherits are composed of `xp` and run as they are.

Instances are passed to whoever computes; there is no global or current backend.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from backends.availability import Availability
from backends.operations import (
    Activations,
    Batches,
    Convolution,
    Linear,
    Losses,
    Pooling,
    Updates,
)
from backends.operations.common import Array
from backends.program import (
    CompiledEpoch,
    CompiledInference,
    NotCompiledError,
    Program,
    TrainingProgram,
)


@dataclass(frozen=True)
class DeviceInfo:
    """What a backend computes on.

    Attributes:
        name: the processor in words, such as "NVIDIA H200" or "AMD EPYC, 2 cores".
        memory_total_bytes: memory of the device; None where the system does not tell.
        libraries: name and version of each library that does the work, at least one; runs and
            benchmarks record them.
    """

    name: str
    memory_total_bytes: int | None
    libraries: dict[str, str]


class Backend(Losses, Activations, Batches, Convolution, Linear, Pooling, Updates, ABC):
    """An array library, and the operations of a neural network on its arrays.

    A subclass is called without arguments, and sets `xp`.

    Attributes:
        name: the name users give, such as "numpy".
        xp: namespace of the Python array API standard whose arrays the operations take and return.
        threads: the most threads of the CPU that it computes with, from its next computation on;
            None for its own rule. Only where `max_threads` is a number is it obeyed.
        device: which of several devices it computes on, as `take_device` was told; None for the
            library's own choice.
    """

    name: ClassVar[str]
    threads: int | None = None
    device: int | None = None

    @property
    def max_threads(self) -> int | None:
        """How many threads its own rule takes at most; None where their number is not for us."""
        return None

    @property
    def device_count(self) -> int | None:
        """How many devices there are to choose from; None where that is not for us to choose."""
        return None

    def take_device(self, number: int) -> None:
        """Compute on one of several devices; to be called before the first array is made.

        Raises:
            ValueError: there is no device of this number.
        """
        count = self.device_count
        if count is None:
            raise ValueError(
                f"backend {self.name!r} does not take a device, got {number}; leave it out"
            )
        if not 0 <= number < count:
            known = "device 0 alone" if count == 1 else f"devices 0 to {count - 1}"
            raise ValueError(f"backend {self.name!r} has {known} here, got {number}")
        self.device = number

    @classmethod
    @abstractmethod
    def availability(cls) -> Availability:
        """Say whether the backend can run here, by running something small; never raise."""

    @abstractmethod
    def asarray(self, host: NDArray[Any], *, dtype: str | None = None) -> Array:
        """Copy a NumPy array to the device, converted to the dtype named `dtype` if given."""

    @abstractmethod
    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Copy an array of this backend to a new NumPy array of the same shape and dtype."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has finished all work it was given; a clock may be read then."""

    @abstractmethod
    def device_info(self) -> DeviceInfo:
        """Say what the backend computes on."""

    @contextmanager
    def computation(self, kinds: frozenset[str]) -> Iterator[None]:
        """Surround a stretch of work on this backend, such as some training steps.

        A backend puts here what must hold while it computes: a device selected, thread pools
        bounded, warnings silenced that the caller finds by other means. By default nothing.

        Args:
            kinds: names of the operations that the work is made of, such as "conv2d".
        """
        yield

    def compile_epoch(self, program: TrainingProgram) -> CompiledEpoch:
        """Return the program in a form that runs many steps in one call.

        Its methods are work that `computation` surrounds, as the operations are.

        Raises:
            NotCompiledError: this backend runs it operation by operation; the message says why.
        """
        raise NotCompiledError(f"the backend {self.name} has no compiled epochs")

    def compile_inference(self, program: Program) -> CompiledInference:
        """Return the program in a form that predicts in one call.

        Raises:
            NotCompiledError: this backend runs it operation by operation; the message says why.
        """
        raise NotCompiledError(f"the backend {self.name} has no compiled predictions")

    def zeros(self, shape: tuple[int, ...], *, dtype: str) -> Array:
        """Return zeros of `shape` in the dtype named `dtype`."""
        return self.asarray(np.zeros(shape, dtype=dtype))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
