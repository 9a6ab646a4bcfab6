"""`RawModule` and its kernels as CuPy has them, on NumPy arrays and the emulator."""

import ctypes
import enum
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tests.support.cuda_emulator.build import compile_module

MOST_THREADS_A_BLOCK = 1024


class ThreadOrder(enum.IntEnum):
    """In which order threads, and blocks, run between two barriers."""

    UP = 0
    DOWN = 1
    RANDOM = 2


class EmulationError(RuntimeError):
    """A kernel did what a GPU may punish with anything, or with nothing at all."""


class CompileException(Exception):  # noqa: N818 - the name that CuPy has for it
    """A source does not compile; the message is the compiler's."""


class _Index(ctypes.Structure):
    _fields_: ClassVar = [("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint)]


class _Launch(ctypes.Structure):
    _fields_: ClassVar = [
        ("kernel", ctypes.c_void_p),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("grid", _Index),
        ("block", _Index),
        ("resident", ctypes.c_uint),
        ("cluster", ctypes.c_uint),
        ("order", ctypes.c_uint),
        ("seed", ctypes.c_uint),
        ("shared", ctypes.c_void_p),
        ("shared_bytes", ctypes.c_uint),
    ]


class _Parameter(ctypes.Structure):
    _fields_: ClassVar = [
        ("bytes", ctypes.c_int),
        ("element_bytes", ctypes.c_int),
        ("is_real", ctypes.c_int),
    ]


@dataclass
class Device:
    """What launches go to.

    Attributes:
        order: in which threads run; tests change it between launches.
        seed: of the random order.
        sanitize: watch all accesses to memory; the process must have loaded AddressSanitizer.
        launched: names of the kernels that were launched, in their order.
        recorded: launches of the graph that is being captured; None while they are carried out.
        streams: those that were made current, one within the other; outside, all others' stream is.
        capturing: the stream that captures the graph.
        selected: number of the GPU that the host has selected; there is but one behind them all.
        used: numbers of the GPUs that were selected when something was launched or allocated.
    """

    order: ThreadOrder = ThreadOrder.UP
    seed: int = 0
    sanitize: bool = False
    launched: list[str] = field(default_factory=list)
    recorded: list[Callable[[], None]] | None = None
    streams: list[object] = field(default_factory=list)
    capturing: object | None = None
    selected: int = 0
    used: set[int] = field(default_factory=set)

    def use(self) -> None:
        """Note that the selected GPU is used."""
        self.used.add(self.selected)


class RawModule:
    """The kernels of a source.

    Args:
        code: CUDA C++.
        options: of NVRTC.
        backend: "nvrtc", the only one.
        device: where kernels run; one of the module's own if None.
    """

    def __init__(
        self,
        *,
        code: str,
        options: Sequence[str] = (),
        backend: str = "nvrtc",
        device: Device | None = None,
    ) -> None:
        assert backend == "nvrtc"
        self._device = device or Device()
        self._source = code, tuple(options), self._device.sanitize

    def get_function(self, name: str) -> "RawKernel":
        return RawKernel(_load(*self._source), name, self._device)


class RawKernel:
    """A kernel of a module; it has run when the call of it returns, unless it is captured."""

    def __init__(self, library: ctypes.CDLL, name: str, device: Device) -> None:
        self.name = name
        self._device = device
        self.is_cluster: bool = getattr(library, f"blocks_of_a_cluster_of_{name}")() > 1
        self._run = getattr(library, f"launch_{name}")
        self._run.argtypes, self._run.restype = [_Launch], ctypes.c_char_p
        parameters = ctypes.POINTER(_Parameter)()
        count = getattr(library, f"parameters_of_{name}")(ctypes.byref(parameters))
        self._parameters = parameters[:count]

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]
    ) -> None:
        """Run the kernel to its end, or add it to the graph that is being captured."""
        self.kernel(grid, block, args)

    def kernel(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        enable_cooperative_groups: bool = False,
    ) -> None:
        """Do the same; where it says so, all blocks run side by side.

        Raises:
            TypeError: an argument is not what the kernel takes; a GPU would not notice.
            EmulationError: the kernel goes wrong.
        """
        self._device.use()
        if len(args) != len(self._parameters):
            raise TypeError(f"{self.name} takes {len(self._parameters)} arguments, got {len(args)}")
        values = [self._value(number, value) for number, value in enumerate(args)]
        grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        blocks = grid[0] * grid[1] * grid[2]
        threads = block[0] * block[1] * block[2]
        if blocks < 1 or max(grid[1:]) > 65535 or not 1 <= threads <= MOST_THREADS_A_BLOCK:
            raise EmulationError(f"{self.name} cannot be launched with grid {grid}, block {block}")

        def launch() -> None:
            assert args is not None  # the arrays live as long as the graph
            resident = blocks if enable_cooperative_groups else 1
            self._launch(grid, block, values, resident=resident)

        if self._device.recorded is None:
            launch()
        else:
            current = self._device.streams[-1] if self._device.streams else None
            assert current is self._device.capturing, (
                f"{self.name} goes to another stream than the one that captures"
            )
            self._device.recorded.append(launch)

    def _launch(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        values: list[np.ndarray[Any, Any]],
        *,
        resident: int,
    ) -> None:
        addresses = (ctypes.c_void_p * max(1, len(values)))(*(v.ctypes.data for v in values))
        launch = _Launch(
            arguments=addresses,
            grid=_Index(*grid),
            block=_Index(*block),
            resident=resident,
            order=self._device.order,
            seed=self._device.seed,
        )
        self._device.launched.append(self.name)
        message = self._run(launch)
        if message:
            raise EmulationError(f"{self.name}: {message.decode()}")

    def _value(self, number: int, argument: Any) -> np.ndarray[Any, Any]:
        """Return the bytes that CuPy would hand to the kernel, after a look at their meaning."""
        wanted = self._parameters[number]
        if isinstance(argument, np.ndarray) and argument.dtype.names:
            return self._structure(number, argument)
        if isinstance(argument, np.ndarray):
            self._check_array(number, argument)
            return np.array(argument.ctypes.data, np.uint64)
        # Python's numbers are the longest of their kind, in CuPy too.
        types = {int: np.int64, float: np.float64}
        value = np.array(argument, types.get(type(argument)))
        is_pointer = wanted.element_bytes > 0
        is_null = is_pointer and value.dtype == np.uint64 and value == 0
        if is_pointer and not is_null:
            raise TypeError(f"{self.name}, argument {number}: expected an array, got {argument!r}")
        if value.itemsize != wanted.bytes or (value.dtype.kind == "f") != bool(
            wanted.is_real and not is_pointer
        ):
            kind = "a floating-point number" if wanted.is_real else "an integer"
            raise TypeError(
                f"{self.name}, argument {number}: expected {kind} of {wanted.bytes} bytes, got "
                f"{value.dtype}"
            )
        return value

    def _structure(self, number: int, argument: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return a copy of a structure, which CuPy hands over by value if there is one of it."""
        wanted = self._parameters[number]
        where = f"{self.name}, argument {number}"
        if argument.size != 1:
            raise TypeError(f"{where}: expected one structure, got {argument.size}")
        if wanted.element_bytes or wanted.bytes != argument.nbytes:
            kind = "a pointer" if wanted.element_bytes else f"{wanted.bytes} bytes"
            raise TypeError(f"{where}: expected {kind}, got a structure of {argument.nbytes} bytes")
        return np.array(argument)

    def _check_array(self, number: int, array: np.ndarray[Any, Any]) -> None:
        wanted = self._parameters[number]
        where = f"{self.name}, argument {number}"
        if not wanted.element_bytes:
            raise TypeError(f"{where}: expected a number, got an array")
        is_real = array.dtype.kind == "f"
        if array.itemsize != wanted.element_bytes or is_real != bool(wanted.is_real):
            kind = "floating-point" if wanted.is_real else "integer"
            raise TypeError(
                f"{where}: expected {kind} elements of {wanted.element_bytes} bytes, got "
                f"{array.dtype}"
            )
        if not array.flags.c_contiguous:
            raise TypeError(f"{where}: the array is not contiguous")


@functools.cache
def _load(code: str, options: tuple[str, ...], sanitize: bool) -> ctypes.CDLL:
    path, log = compile_module(code, options, sanitize=sanitize)
    if not path:
        raise CompileException(log)
    return ctypes.CDLL(path)
