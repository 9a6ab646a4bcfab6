"""Compiles kernels for the emulator, and keeps what is compiled."""

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
# The sanitizer's own code takes the compiler longer than ours; the last -O counts.
CHECKS = ("-O0", "-fsanitize=address", "-fsanitize-sections=cuda_shared")
KERNEL = re.compile(
    r'extern "C" __global__ void\s*(?:TOGETHER\s*)?(?:__launch_bounds__\([^)]*\))?\s*(\w+)\('
)


def why_not() -> str:
    """Why the emulator does not run here; empty where it does."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"the CUDA emulator switches fibers on x86-64 alone, not on {platform.machine()}"
    if shutil.which("g++") is None:
        return "the CUDA emulator needs g++"
    return ""


def kernels_in(code: str) -> list[str]:
    """The names of the kernels of a source."""
    return KERNEL.findall(code)


def compile_module(code: str, options: Sequence[str], *, sanitize: bool) -> tuple[str, str]:
    """Compile a source; return the path of the library, and the compiler's log if there is none.

    Args:
        code: CUDA C++.
        options: such as "-DREAL=float"; what NVRTC alone knows is left out.
        sanitize: watch all accesses to memory with AddressSanitizer.
    """
    checks = CHECKS if sanitize else ()
    header = _precompiled_header(checks)
    names = (option.removeprefix("-D").split("=", 1) for option in options if option[:2] == "-D")
    defined = "".join(f"#define {name} {value}\n" for name, value in names)
    known = "".join(f"EMULATOR_KERNEL({name})\n" for name in kernels_in(code))
    # Visible are only the functions that the last lines define.
    source = f"{defined}{code}\n#pragma GCC visibility push(default)\n{known}"
    command = [
        *("g++", "-x", "c++", *OPTIONS, *checks, "-w", "-shared", "-include", str(header)),
        *("-", "-x", "none", str(_scheduler())),
    ]
    digest = hashlib.sha256("\0".join([*command, source]).encode()).hexdigest()[:24]
    return _build(command, source, _folder() / f"{digest}.so")


@functools.cache
def _scheduler() -> Path:
    """Compile the scheduler, which is the same for all kernels."""
    warnings = ["-Wall", "-Wextra", "-Werror"]
    command = ["g++", *OPTIONS, "-O2", *warnings, "-c", str(HERE / "scheduler.cpp")]
    path, log = _build(command, "", _folder() / "scheduler.o")
    assert path, log
    return Path(path)


@functools.cache
def _precompiled_header(checks: Sequence[str]) -> Path:
    """Return a copy of `cuda.h` beside what the compiler made of it: reading it takes the longest.

    The compiler takes that only where its options are the same.
    """
    folder = _folder() / ("sanitized" if checks else "plain")
    folder.mkdir(exist_ok=True)
    for name in ("cuda.h", "scheduler.h"):
        assert _build(["cp", str(HERE / name)], "", folder / name, output=())[0]
    command = ["g++", "-x", "c++-header", *OPTIONS, *checks, "-w", str(folder / "cuda.h")]
    path, log = _build(command, "", folder / "cuda.h.gch")
    assert path, log
    return folder / "cuda.h"


@functools.cache
def _folder() -> Path:
    """Return where compiled kernels are kept, for this version of the emulator."""
    digest = hashlib.sha256()
    for path in sorted(HERE.glob("*.[ch]*")):
        digest.update(path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"cuda-emulator-{digest.hexdigest()[:12]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _build(
    command: Sequence[str], source: str, target: Path, *, output: Sequence[str] = ("-o",)
) -> tuple[str, str]:
    """Run a command unless its result is there; several processes may do so at once."""
    if target.exists():
        return str(target), ""
    with tempfile.TemporaryDirectory(dir=_folder()) as folder:
        made = Path(folder) / target.name
        result = subprocess.run(
            [*command, *output, str(made)],
            input=source,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            return "", result.stderr
        made.rename(target)
    return str(target), ""
