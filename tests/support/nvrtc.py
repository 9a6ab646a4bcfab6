"""Calls NVRTC, NVIDIA's runtime compiler, through ctypes. It needs neither a GPU nor a driver."""

import ctypes
import functools
import importlib.util
import re
from collections.abc import Sequence
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backends.cupy.loader import CUPY_OPTIONS

MISSING = 'NVRTC is not installed: .venv/bin/pip install -e ".[gpu-check]"'
ARCHITECTURES = (70, 75, 80, 86, 89, 90, 100, 120)
# Parameters of tests. Some are slow, because their code is that of 70 or 80 for another processor.
PARAMETERS = [
    pytest.param(number, marks=[pytest.mark.slow] if number in (75, 86, 89) else [])
    for number in ARCHITECTURES
]
_ENTRY = re.compile(r"Compiling entry function '(\w+)' for")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")


@dataclass(frozen=True)
class Usage:
    """Resource usage of a kernel.

    Attributes:
        registers: number of registers per thread.
        spilled_bytes: bytes per thread that spilled to local memory: stack frame, stores and loads.
    """

    registers: int
    spilled_bytes: int


class CompilerError(Exception):
    """A source does not compile; the message is the log of the compiler."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """Load NVRTC from its wheel or from the system; return None if it is not installed."""
    for package in ("nvidia.cuda_nvrtc", "nvidia.cu13"):
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for folder in (spec and spec.submodule_search_locations) or ():
            # NVRTC of CUDA 13 does not find the other library beside it.
            for path in Path(folder, "lib").glob("libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(path))
            for path in sorted(Path(folder, "lib").glob("libnvrtc.so.*")):
                return ctypes.CDLL(str(path))
    name = find_library("nvrtc")
    return ctypes.CDLL(name) if name else None


def architectures() -> list[int]:
    """Return the compute capabilities that both this NVRTC and this project support."""
    nvrtc = library()
    assert nvrtc is not None, MISSING
    count = ctypes.c_int()
    nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(count))
    numbers = (ctypes.c_int * count.value)()
    nvrtc.nvrtcGetSupportedArchs(numbers)
    return [number for number in ARCHITECTURES if number in list(numbers)]


def compile_source(code: str, options: Sequence[str], *, architecture: int) -> dict[str, Usage]:
    """Compile a source as CuPy does; return the resource usage of each kernel.

    Args:
        code: CUDA C++.
        options: options for NVRTC, to which CuPy's are added.
        architecture: compute capability, such as 90.

    Raises:
        CompilerError: the source does not compile.
    """
    log, _ = _compile(
        code, [*options, f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v"]
    )
    return _usage(log)


def ptx(code: str, options: Sequence[str]) -> str:
    """Compile a source as CuPy does, and return its PTX, the assembly language of CUDA.

    Raises:
        CompilerError: the source does not compile.
    """
    return _compile(code, [*options, "--gpu-architecture=compute_90"])[1]


def _compile(code: str, options: Sequence[str]) -> tuple[str, str]:
    """Compile a source; return the log of the compiler and, for a virtual architecture, the PTX."""
    nvrtc = library()
    assert nvrtc is not None, MISSING
    program = ctypes.c_void_p()
    status = nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None
    )
    assert status == 0, f"nvrtcCreateProgram returned {status}"
    all_options = [*options, *CUPY_OPTIONS]
    encoded = (ctypes.c_char_p * len(all_options))(*map(str.encode, all_options))
    status = nvrtc.nvrtcCompileProgram(program, len(all_options), encoded)
    log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
    code_of_ptx = "" if status else _text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    if status:
        raise CompilerError(log)
    return log, code_of_ptx


def _text(get_size: Any, get_text: Any, program: ctypes.c_void_p) -> str:
    """Return a text that NVRTC copies to a buffer."""
    size = ctypes.c_size_t()
    get_size(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    get_text(program, text)
    return text.value.decode()


def _usage(log: str) -> dict[str, Usage]:
    """Parse the log of ptxas, which has one section per kernel."""
    _, *sections = _ENTRY.split(log)
    usage = {}
    for name, text in zip(sections[::2], sections[1::2], strict=True):
        registers = _USED.search(text)
        spills = _SPILLS.findall(text)  # of the kernel and of the functions that it calls
        assert registers is not None, text
        assert spills, text
        usage[name] = Usage(int(registers[1]), sum(int(size) for sizes in spills for size in sizes))
    return usage
