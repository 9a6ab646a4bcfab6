"""Compiles kernels for the emulator with g++, and caches the libraries on disk."""

import functools
import hashlib
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
OPTIONS = ["-std=c++17", "-O1", "-g0", "-fPIC", "-ffp-contract=off", "-fvisibility=hidden"]
# g++ uses the last -O option. -O0, because optimizing the checks of AddressSanitizer takes long.
SANITIZE = ("-O0", "-fsanitize=address", "-fsanitize-sections=cuda_shared")
# Macros and attributes such as __launch_bounds__(256) may precede the name.
KERNEL = re.compile(r'extern "C" __global__ void\s+(?:\w+\([^)]*\)\s+|\w+\s+)*(\w+)\(')
# An asm statement: the instruction, the operands that it changes, and those that it reads.
ASM = re.compile(
    r'\basm(?: volatile)?\(((?:\s*"[^"]*")+)\s*:([^:]*):([^:;]*)(?::\s*"memory"\s*)?\);'
)
OPERAND = re.compile(r'"(?:\+f|=r|r)"\(([^()]*)\)')


def unavailable_reason() -> str:
    """Return why the emulator cannot run on this machine; an empty string if it can."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"the CUDA emulator runs only on x86-64, not on {platform.machine()}"
    if shutil.which("g++") is None:
        return "the CUDA emulator needs g++, which is not on the PATH"
    return ""


def kernels_in(code: str) -> list[str]:
    """Return the names of the kernels in CUDA C++ code."""
    return KERNEL.findall(code)


def compile_module(code: str, options: Sequence[str], *, sanitize: bool) -> tuple[str, str]:
    """Compile CUDA C++ to a library.

    Returns:
        The path of the library and an empty log, or "" and the log if g++ failed.

    Args:
        code: CUDA C++.
        options: options for NVRTC; only definitions such as "-DREAL=float" are used.
        sanitize: check all memory accesses with AddressSanitizer.
    """
    sanitize_options = SANITIZE if sanitize else ()
    header = _precompiled_header(sanitize_options)
    names = (option.removeprefix("-D").split("=", 1) for option in options if option[:2] == "-D")
    definitions = "".join(f"#define {name} {value}\n" for name, value in names)
    exports = "".join(f"EMULATOR_KERNEL({name})\n" for name in kernels_in(code))
    # The library exports only the functions that EMULATOR_KERNEL defines.
    code = ASM.sub(_inline_ptx, code)
    source = f"{definitions}{code}\n#pragma GCC visibility push(default)\n{exports}"
    command = [
        *("g++", "-x", "c++", *OPTIONS, *sanitize_options, "-w", "-shared"),
        *("-include", str(header), "-", "-x", "none", str(_scheduler())),
    ]
    digest = hashlib.sha256("\0".join([*command, source]).encode()).hexdigest()[:24]
    return _build(command, source, _cache_folder() / f"{digest}.so")


def _inline_ptx(statement: re.Match[str]) -> str:
    """Return the call of `emulator::inline_ptx` that replaces an asm statement."""
    instruction, changed, read = statement.groups()
    outputs = ", ".join(f"&{operand}" for operand in OPERAND.findall(changed))
    inputs = ", ".join(f"uint32_t({operand})" for operand in OPERAND.findall(read))
    lines = "\n" * statement[0].count("\n")  # keeps the numbers of the following lines
    text = " ".join(line.strip() for line in instruction.splitlines())
    return f"emulator::inline_ptx({text}, {{{outputs}}}, {{{inputs}}});{lines}"


@functools.cache
def _scheduler() -> Path:
    """Compile the scheduler, which is linked with all kernels; return the path."""
    warnings = ["-Wall", "-Wextra", "-Werror"]
    sources = [str(HERE / name) for name in ("scheduler.cpp", "mbarriers.cpp")]
    command = ["g++", *OPTIONS, "-O2", *warnings, "-r", "-nostdlib", *sources]
    path, log = _build(command, "", _cache_folder() / "scheduler.o")
    assert path, log
    return Path(path)


@functools.cache
def _precompiled_header(sanitize_options: Sequence[str]) -> Path:
    """Precompile `cuda.h`, which takes longer to compile than a kernel; return the path to include.

    g++ looks for the precompiled header next to `cuda.h`, and uses it only if the options are the
    same. So each set of options has its own folder with a copy of the header.
    """
    folder = _cache_folder() / ("sanitized" if sanitize_options else "plain")
    folder.mkdir(exist_ok=True)
    for name in ("cuda.h", "inline_ptx.h", "scheduler.h", "tensor_cores.h"):
        assert _build(["cp", str(HERE / name)], "", folder / name, output=())[0]
    command = ["g++", "-x", "c++-header", *OPTIONS, *sanitize_options, "-w", str(folder / "cuda.h")]
    path, log = _build(command, "", folder / "cuda.h.gch")
    assert path, log
    return folder / "cuda.h"


@functools.cache
def _cache_folder() -> Path:
    """Return the folder for the compiled files; each version of the emulator has its own."""
    digest = hashlib.sha256()
    for path in sorted(HERE.glob("*.[ch]*")):
        digest.update(path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"cuda-emulator-{digest.hexdigest()[:12]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _build(
    command: Sequence[str], source: str, target: Path, *, output: Sequence[str] = ("-o",)
) -> tuple[str, str]:
    """Run a command that writes `target`, unless `target` exists.

    Several processes may call this function concurrently.

    Args:
        command: the command, without the path of its result.
        source: standard input of the command.
        target: path of the result.
        output: option that precedes the path of the result.

    Returns:
        `target` and an empty log, or "" and the error output of the command if it failed.
    """
    if target.exists():
        return str(target), ""
    with tempfile.TemporaryDirectory(dir=_cache_folder()) as folder:
        result_path = Path(folder) / target.name
        result = subprocess.run(
            [*command, *output, str(result_path)],
            input=source,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            return "", result.stderr
        result_path.rename(target)  # atomic, so no process sees a partial file
    return str(target), ""
