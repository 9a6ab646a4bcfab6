"""Device memory of a training, or of several members of a population that share launches.

The arrays of two members are a fixed distance apart, which the kernels take as `member_stride`.
Python passes the arrays of the first member. A single training uses arrays of its own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.cupy.chunk import ChunkMemory
from backends.cupy.launch.launcher import ceil_div
from backends.operations.common import Array
from backends.program import TrainingProgram

# Members that train at the same time. No GPU has room for more blocks, so more would gain nothing.
MAX_MEMBERS = 1024
_ALIGNMENT = 256  # bytes, as for CuPy's arrays


class Memory:
    """Allocates the arrays of a single training.

    Attributes:
        members: number of members that have arrays.
        stride: distance between the arrays of two members, in bytes.
        pinned: allocates pinned memory of the host.
    """

    members = 1
    stride = 0

    def __init__(self, cupy: Any) -> None:
        self.pinned: Callable[[int], Any] = cupy.cuda.alloc_pinned_memory
        self.empty: Callable[[int | tuple[int, ...], str], Array] = cupy.empty
        self.zeros: Callable[[int | tuple[int, ...], str], Array] = cupy.zeros

    def of_all(self, array: Array) -> Array:
        """Return a view (members, ...) of the arrays of all members, given that of the first."""
        return array[None]


class MemberMemory(Memory):
    """Allocates the arrays of several members in one piece.

    Args:
        cupy: the module `cupy`.
        members: number of members.
        stride: number of bytes for each, as a `ByteCounter` counts them.
    """

    def __init__(self, cupy: Any, members: int, stride: int) -> None:
        self.members = members
        self.stride = stride
        self.pinned = cupy.cuda.alloc_pinned_memory
        self.empty, self.zeros = self._empty, self._zeros
        self._as_strided = cupy.lib.stride_tricks.as_strided
        self._bytes = cupy.empty((members, stride), "uint8")
        self._used = 0

    def of_all(self, array: Array) -> Array:
        """Return a view (members, ...) of the arrays of all members, given that of the first."""
        return self._as_strided(array, (self.members, *array.shape), (self.stride, *array.strides))

    def _empty(self, shape: int | tuple[int, ...], dtype: str) -> Array:
        begin, size = self._used, _bytes_of(shape, dtype)
        self._used += _aligned(size)
        return self._bytes[0, begin : begin + size].view(dtype).reshape(shape)

    def _zeros(self, shape: int | tuple[int, ...], dtype: str) -> Array:
        array = self._empty(shape, dtype)
        self.of_all(array)[...] = 0
        return array


class ByteCounter:
    """Counts the bytes of a member's arrays; used in place of a `Memory`.

    Args:
        members: number of members.
    """

    def __init__(self, members: int) -> None:
        self.members = members
        self.total = 0

    def empty(self, shape: int | tuple[int, ...], dtype: str) -> None:
        """Count the bytes of an array."""
        self.total += _aligned(_bytes_of(shape, dtype))

    zeros = empty


@dataclass(frozen=True)
class Launches:
    """The launches of a chunk, and arrays of the first member.

    Attributes:
        memory: allocated the arrays.
        chunk: inputs and results of the steps.
        parameters: parameter vector and state arrays of the optimizer; for several members, these
            are copies.
        launch: launches the first n steps of the chunk.
    """

    memory: Memory
    chunk: ChunkMemory
    parameters: tuple[Array, ...]
    launch: Callable[[int], None]


def memory_for(cupy: Any, members: int, stride: int) -> Memory:
    """Return the memory of a number of members, with `stride` bytes each."""
    return MemberMemory(cupy, members, stride) if members > 1 else Memory(cupy)


def copies_of_parameters(memory: Any, program: TrainingProgram) -> tuple[Array, ...]:
    """Return arrays for the parameters and the optimizer's state of a member.

    A single training needs no copies; it returns an empty tuple for it.
    """
    if memory.members == 1:
        return ()
    count = 1 + len(program.update.state_names)
    return tuple(memory.empty(program.parameters, program.dtype) for _ in range(count))


def _bytes_of(shape: int | tuple[int, ...], dtype: str) -> int:
    count = shape if isinstance(shape, int) else math.prod(shape)
    return int(count) * np.dtype(dtype).itemsize


def _aligned(size: int) -> int:
    return ceil_div(size, _ALIGNMENT) * _ALIGNMENT
