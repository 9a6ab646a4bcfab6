"""CuPy's `RawModule` and `RawKernel` for NumPy arrays; the emulator runs the kernels."""

import ctypes
import enum
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tests.support.cuda_emulator.build import compile_module

MAX_THREADS_PER_BLOCK = 1024
MAX_GRID_Y_OR_Z = 65535


class ThreadOrder(enum.IntEnum):
    """The order in which threads and blocks run between two barriers."""

    ASCENDING = 0
    DESCENDING = 1
    RANDOM = 2


class EmulationError(RuntimeError):
    """A kernel has undefined behavior on a GPU, such as a deadlock or an invalid launch."""


class CompileException(Exception):  # noqa: N818 - CuPy's name
    """The CUDA source does not compile; the message is the log of the compiler."""


class _Index(ctypes.Structure):
    _fields_: ClassVar = [("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint)]


class _Launch(ctypes.Structure):
    """The structure `Launch` in scheduler.h."""

    _fields_: ClassVar = [
        ("kernel", ctypes.c_void_p),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("grid", _Index),
        ("block", _Index),
        ("concurrent_blocks", ctypes.c_uint),
        ("cluster_size", ctypes.c_uint),
        ("order", ctypes.c_uint),
        ("seed", ctypes.c_uint),
        ("shared", ctypes.c_void_p),
        ("shared_bytes", ctypes.c_uint),
    ]


class _Parameter(ctypes.Structure):
    """The structure `Parameter` in cuda.h."""

    _fields_: ClassVar = [
        ("bytes", ctypes.c_int),
        ("element_bytes", ctypes.c_int),
        ("is_floating_point", ctypes.c_int),
    ]


@dataclass
class Emulator:
    """Settings and state of the emulated GPUs.

    Attributes:
        order: thread order of the next launches.
        seed: seed of the random order.
        sanitize: compile kernels with AddressSanitizer; the process must have loaded it.
        is_late: whether launches and copies on a stream wait until the host waits for the stream,
            as late as on a slow GPU. Those on the default stream run at once.
        launched: names of the launched kernels, in order.
        captured: launches of the graph that is being captured; None if no capture is active.
        streams: stack of current streams, the innermost last; empty for the default stream.
        capturing_stream: the stream on which the graph is captured; None if no capture is active.
        selected_device: number of the GPU that the host has selected.
        used_devices: numbers of the GPUs that launched kernels, or allocated or copied memory.
    """

    order: ThreadOrder = ThreadOrder.ASCENDING
    seed: int = 0
    sanitize: bool = False
    is_late: bool = False
    launched: list[str] = field(default_factory=list)
    captured: list[Callable[[], None]] | None = None
    streams: list[Any] = field(default_factory=list)
    capturing_stream: object | None = None
    selected_device: int = 0
    used_devices: set[int] = field(default_factory=set)

    def mark_used(self) -> None:
        """Record that the selected GPU was used."""
        self.used_devices.add(self.selected_device)

    def submit(self, launch: Callable[[], None], name: str) -> None:
        """Run a launch, or add it to the graph that is being captured."""
        if self.captured is None:
            self.enqueue(launch, self.current_stream)
            return
        is_right = self.current_stream is self.capturing_stream
        assert is_right, f"{name}: launched outside the capturing stream"
        self.captured.append(launch)

    @property
    def current_stream(self) -> Any:
        """The innermost current stream; None for the default stream."""
        return self.streams[-1] if self.streams else None

    def enqueue(self, work: Callable[[], object], stream: Any) -> None:
        """Run work, or let it wait until the host waits for its stream."""
        if self.is_late and stream is not None:
            stream.waiting.append(work)
        else:
            work()


class RawModule:
    """The compiled kernels of one CUDA source.

    Args:
        code: CUDA C++.
        options: options for NVRTC.
        backend: "nvrtc"; other values are not supported.
        emulator: the emulator that runs the kernels; None creates one.
    """

    def __init__(
        self,
        *,
        code: str,
        options: Sequence[str] = (),
        backend: str = "nvrtc",
        emulator: Emulator | None = None,
    ) -> None:
        assert backend == "nvrtc"
        self._emulator = emulator or Emulator()
        self._source = code, tuple(options), self._emulator.sanitize

    def get_function(self, name: str) -> "RawKernel":
        return RawKernel(_load(*self._source), name, self._emulator)


class RawKernel:
    """A kernel of a module. A call runs the kernel to its end, or adds it to a captured graph."""

    def __init__(self, library: ctypes.CDLL, name: str, emulator: Emulator) -> None:
        self.name = name
        self._emulator = emulator
        self.is_cluster: bool = getattr(library, f"cluster_size_of_{name}")() > 1
        self._run = getattr(library, f"launch_{name}")
        self._run.argtypes, self._run.restype = [_Launch], ctypes.c_char_p
        parameters = ctypes.POINTER(_Parameter)()
        count = getattr(library, f"parameters_of_{name}")(ctypes.byref(parameters))
        self._parameters = parameters[:count]

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]
    ) -> None:
        """Launch the kernel without cooperative groups, as `kernel` does."""
        self.kernel(grid, block, args)

    def kernel(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        enable_cooperative_groups: bool = False,
    ) -> None:
        """Launch the kernel, with all blocks running concurrently if the launch is cooperative.

        Raises:
            TypeError: an argument does not match its parameter. CuPy does not check this.
            EmulationError: the launch is invalid, or the kernel has undefined behavior.
        """
        self._emulator.mark_used()
        if len(args) != len(self._parameters):
            raise TypeError(f"{self.name} takes {len(self._parameters)} arguments, got {len(args)}")
        values = [self._pack(number, argument) for number, argument in enumerate(args)]
        grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        blocks = grid[0] * grid[1] * grid[2]
        threads = block[0] * block[1] * block[2]
        if (
            blocks < 1
            or max(grid[1:]) > MAX_GRID_Y_OR_Z
            or not 1 <= threads <= MAX_THREADS_PER_BLOCK
        ):
            raise EmulationError(f"{self.name}: invalid launch with grid {grid}, block {block}")

        def launch() -> None:
            assert args is not None  # this reference keeps the arrays alive as long as the graph
            concurrent_blocks = blocks if enable_cooperative_groups else 1
            self._launch(grid, block, values, concurrent_blocks=concurrent_blocks)

        self._emulator.submit(launch, self.name)

    def _launch(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        values: list[np.ndarray[Any, Any]],
        *,
        concurrent_blocks: int,
    ) -> None:
        addresses = (ctypes.c_void_p * max(1, len(values)))(*(v.ctypes.data for v in values))
        launch = _Launch(
            arguments=addresses,
            grid=_Index(*grid),
            block=_Index(*block),
            concurrent_blocks=concurrent_blocks,
            order=self._emulator.order,
            seed=self._emulator.seed,
        )
        self._emulator.launched.append(self.name)
        message = self._run(launch)
        if message:
            raise EmulationError(f"{self.name}: {message.decode()}")

    def _pack(self, number: int, argument: Any) -> np.ndarray[Any, Any]:
        """Check an argument and return the bytes that CuPy would pass to the kernel."""
        parameter = self._parameters[number]
        where = f"{self.name}, argument {number}"
        if isinstance(argument, np.ndarray) and argument.dtype.names:
            return _pack_structure(where, parameter, argument)
        if isinstance(argument, np.ndarray):
            _check_array(where, parameter, argument)
            return np.array(argument.ctypes.data, np.uint64)
        return _pack_scalar(where, parameter, argument)


def _pack_scalar(where: str, parameter: _Parameter, argument: Any) -> np.ndarray[Any, Any]:
    # As in CuPy, a Python int has 8 bytes and a Python float is a double.
    dtypes = {int: np.int64, float: np.float64}
    value = np.array(argument, dtypes.get(type(argument)))
    is_pointer = parameter.element_bytes > 0
    if is_pointer and value.dtype == np.uint64 and value == 0:
        return value  # a null pointer
    if is_pointer:
        raise TypeError(f"{where}: expected an array, got {argument!r}")
    is_floating_point = bool(parameter.is_floating_point)
    if value.itemsize != parameter.bytes or (value.dtype.kind == "f") != is_floating_point:
        kind = "a floating-point number" if is_floating_point else "an integer"
        raise TypeError(f"{where}: expected {kind} of {parameter.bytes} bytes, got {value.dtype}")
    return value


def _pack_structure(
    where: str, parameter: _Parameter, argument: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Return a copy of a structure, which CuPy passes by value if the array has one element."""
    if argument.size != 1:
        raise TypeError(f"{where}: expected one structure, got {argument.size}")
    if parameter.element_bytes or parameter.bytes != argument.nbytes:
        kind = "a pointer" if parameter.element_bytes else f"{parameter.bytes} bytes"
        raise TypeError(f"{where}: expected {kind}, got a structure of {argument.nbytes} bytes")
    return np.array(argument)


def _check_array(where: str, parameter: _Parameter, array: np.ndarray[Any, Any]) -> None:
    if not parameter.element_bytes:
        raise TypeError(f"{where}: expected a number, got an array")
    is_floating_point = array.dtype.kind == "f"
    if array.itemsize != parameter.element_bytes or is_floating_point != bool(
        parameter.is_floating_point
    ):
        kind = "floating-point" if parameter.is_floating_point else "integer"
        raise TypeError(
            f"{where}: expected {kind} elements of {parameter.element_bytes} bytes, "
            f"got {array.dtype}"
        )
    if not array.flags.c_contiguous:
        raise TypeError(f"{where}: the array is not contiguous")


@functools.cache
def _load(code: str, options: tuple[str, ...], sanitize: bool) -> ctypes.CDLL:
    path, log = compile_module(code, options, sanitize=sanitize)
    if not path:
        raise CompileException(log)
    return ctypes.CDLL(path)
