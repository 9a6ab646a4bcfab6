"""Compiles the CUDA kernels when they are first needed."""

import functools
import importlib.resources
import re
import threading
from collections.abc import Mapping
from typing import Any, TypeAlias

from backends.cupy.kernel import Kernel
from backends.cupy.signature import parameters

Constant: TypeAlias = str | int

OPTIONS = ("-std=c++17",)
# Options that CuPy appends to those of a module, whatever these are. `-ftz=true` flushes denormals:
# float32 operands and results below 2**-126 in magnitude count as 0. float64 is not affected. All
# other defaults of NVRTC are kept: no fast math, so divisions and square roots of other numbers
# round correctly and NaN propagates. NVRTC contracts a * b + c to one fused multiply-add, so
# results may differ from the composed operations in the last bits.
CUPY_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")
REAL = {"float32": "float", "float64": "double"}
WARP_SIZE = 32
_INCLUDE = re.compile(r'^#include "([\w/]+\.cuh)"$', re.MULTILINE)
_PRAGMA_ONCE = re.compile(r"^#pragma once$", re.MULTILINE)


class KernelCompileError(RuntimeError):
    """A kernel does not compile. The message has its name, the options and the compiler's log."""


class Kernels:
    """The compiled kernels, one for each combination of file, name and options.

    Args:
        cupy: the module `cupy`. Its `RawModule` compiles, and caches the result on disk.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._modules: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._kernels: dict[tuple[str, str, tuple[str, ...]], Kernel] = {}
        self._lock = threading.Lock()

    def get(
        self,
        file: str,
        name: str,
        constants: Mapping[str, Constant],
        *,
        dtype: str,
        cooperative: bool = False,
    ) -> Kernel:
        """Return a kernel; compile it at the first call.

        Args:
            file: path of its file in `kernels/` without the ending, such as "convolution".
            name: name of the kernel in that file.
            constants: values of the options that the head of the file lists.
            dtype: "float32" or "float64", the type of its real numbers.
            cooperative: whether all blocks of a launch must be resident together.

        Raises:
            KernelCompileError: the kernel does not compile.
        """
        options = options_for(dtype, **constants)
        key = (file, name, options)
        with self._lock:
            if key not in self._kernels:
                function = self._function(file, name, options)
                macros = {"REAL": REAL[dtype], **constants}
                declared = parameters(source(file), name, macros)
                self._kernels[key] = Kernel(name, function, declared, is_cooperative=cooperative)
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
                f"{' '.join(options)}; run `mnist-accel doctor` to check that the versions of CUDA "
                f"and CuPy match. The compiler's log:\n{error}"
            ) from error


def options_for(dtype: str, **constants: Constant) -> tuple[str, ...]:
    """Return the options of the compiler for a dtype and values of macros."""
    values = {"REAL": REAL[dtype], "WARP_SIZE": WARP_SIZE, **constants}
    return (*OPTIONS, *(f"-D{name}={value}" for name, value in values.items()))


@functools.cache
def source(file: str) -> str:
    """Return a file of `kernels/`, given without its ending, with all headers in place."""
    return with_includes(_read(f"{file}.cu"), f"{file}.cu")


def with_includes(text: str, name: str, included: set[str] | None = None) -> str:
    """Return a source with the headers of `kernels/` in place, each included once.

    CuPy's cache of compiled kernels compares sources, but not the headers that they include.

    Args:
        text: the source.
        name: its file name, for messages of the compiler.
        included: headers that are already in place; headers are added to it.
    """
    already = set() if included is None else included

    def include(match: re.Match[str]) -> str:
        header = match[1]
        if header in already:
            return ""
        already.add(header)
        line = text.count("\n", 0, match.start()) + 2
        return f'{with_includes(_read(header), header, already)}\n#line {line} "{name}"'

    text = _PRAGMA_ONCE.sub("", text)
    return f'#line 1 "{name}"\n{_INCLUDE.sub(include, text)}'


def _read(name: str) -> str:
    folder = importlib.resources.files("backends.cupy.kernels")
    return folder.joinpath(name).read_text(encoding="utf-8")
