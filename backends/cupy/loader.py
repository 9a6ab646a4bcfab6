"""Compiles the kernels of this folder when they are first needed."""

import functools
import importlib.resources
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from backends.operations.common import Array

Constant: TypeAlias = str | int

# Without fast mathematics: quotients and roots are rounded properly, the smallest numbers are kept,
# and NaN stays NaN. But NVRTC fuses products with sums unless it is told not to, so a kernel rounds
# less often than the composed operation does: the two agree but for the last bits.
OPTIONS = ("-std=c++17",)
TOGETHER = frozenset({"small_batches"})  # files whose blocks wait for each other
REAL = {"float32": "float", "float64": "double"}
NULL = np.uint64(0)  # the address that stands for an array that is left out
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)


class KernelCompileError(RuntimeError):
    """A kernel could not be compiled; the message has its name, options and compiler's words."""


class Kernels:
    """The kernels, compiled once for each set of options.

    Args:
        cupy: CuPy, whose `RawModule` compiles and keeps what is compiled on the disk.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._modules: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._kernels: dict[tuple[str, str, tuple[str, ...]], Kernel] = {}
        self._lock = threading.Lock()

    def get(self, file: str, name: str, *, dtype: str, **constants: Constant) -> "Kernel":
        """Return a kernel.

        Args:
            file: name of its file without the ending, such as "convolution".
            name: of the kernel in that file.
            dtype: of its numbers, "float32" or "float64".
            constants: what the head of the file lists as options.

        Raises:
            KernelCompileError: the compiler refuses it.
        """
        options = options_for(dtype, **constants)
        key = (file, name, options)
        with self._lock:
            if key not in self._kernels:
                is_cooperative = file in TOGETHER and "CLUSTER" not in constants
                self._kernels[key] = Kernel(self._function(*key), dtype, is_cooperative)
            return self._kernels[key]

    def _function(self, file: str, name: str, options: tuple[str, ...]) -> Any:
        if (file, options) not in self._modules:
            self._modules[file, options] = self._cupy.RawModule(
                code=source(file), options=options, backend="nvrtc"
            )
        try:
            return self._modules[file, options].get_function(name)
        except self._cupy.cuda.compiler.CompileException as error:
            raise KernelCompileError(
                f"the kernel {name} of backends/cupy/kernels/{file}.cu does not compile with "
                f"{' '.join(options)}; `mnist-accel doctor` says whether CUDA and CuPy fit each "
                f"other. The compiler says:\n{error}"
            ) from error


class Kernel:
    """A compiled kernel, which takes numbers of Python in the sizes that it expects.

    Args:
        function: as CuPy launches it: a Python int would arrive as 8 bytes, a float as a double.
        dtype: of its floating-point numbers.
        is_cooperative: all blocks of a launch run at the same time.
    """

    def __init__(self, function: Any, dtype: str, is_cooperative: bool = False) -> None:
        self._launch = cooperative(function) if is_cooperative else function
        self._real = np.dtype(dtype).type

    def __call__(self, grid: Sequence[int], block: Sequence[int], *arguments: Any) -> None:
        """Launch the kernel, unless there is nothing to do.

        Args:
            grid: numbers of blocks.
            block: numbers of threads of a block.
            arguments: arrays in C order, None for one that is left out, int for `int`, float for
                `real`, and numbers of NumPy as they are.
        """
        if all(grid):
            self._launch(tuple(grid), tuple(block), tuple(map(self._as_argument, arguments)))

    def _as_argument(self, value: Array | float | None) -> Any:
        if value is None:
            return NULL
        if isinstance(value, bool | int):
            return np.int32(value)
        return self._real(value) if isinstance(value, float) else value


def cooperative(function: Any) -> Callable[..., None]:
    """Return what launches a kernel of CuPy, with the same arguments, all blocks at the same time.

    A module of CuPy that is told to be cooperative is linked with CUDA's device runtime, which our
    kernels have no use for, and which is not found everywhere. The launch is all it takes.
    """

    def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        # Looked up here, because CuPy has a function for each GPU.
        function.kernel(grid, block, arguments, enable_cooperative_groups=True)

    return launch


def options_for(dtype: str, **constants: Constant) -> tuple[str, ...]:
    """Return the compiler's options for kernels of a dtype and constants."""
    values = {"REAL": REAL[dtype], **constants}
    return (*OPTIONS, *(f"-D{name}={value}" for name, value in values.items()))


@functools.cache
def source(file: str) -> str:
    """Return a file of this folder with what it includes in place."""
    return with_includes(_read(f"{file}.cu"), f"{file}.cu")


def with_includes(text: str, name: str) -> str:
    """Return a source with the headers of this folder in place, which CuPy's cache then knows.

    Args:
        text: the source.
        name: of its file, for the compiler's messages.
    """

    def include(match: re.Match[str]) -> str:
        line = text.count("\n", 0, match.start()) + 2
        return f'#line 1 "{match[1]}"\n{_read(match[1])}\n#line {line} "{name}"'

    return f'#line 1 "{name}"\n{_INCLUDE.sub(include, text)}'


def _read(name: str) -> str:
    return (
        importlib.resources.files("backends.cupy.kernels")
        .joinpath(name)
        .read_text(encoding="utf-8")
    )
