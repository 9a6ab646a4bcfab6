"""Checks whether Numba works on this machine, and finds its number of threads and its cache.

The functions import Numba when they are called, so importing this module takes little time.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.availability import Availability, pip, unset
from backends.numba.environment import invalid_variable

INSTALL = f"{pip('install', 'numba')} (it has no wheel for some systems, such as Alpine Linux)"
REINSTALL = (
    f"{pip('install', '--upgrade', 'numba', 'numpy')} (each Numba release supports a range of "
    "NumPy releases)"
)


@dataclass(frozen=True)
class NumbaState:
    """Settings of Numba on this machine.

    Attributes:
        threads: maximum number of threads.
        cache: folder in which compiled code is cached; None if no folder can be written.
        cache_problems: messages about damaged files, or about a folder that cannot be written.
    """

    threads: int
    cache: Path | None
    cache_problems: tuple[str, ...]


def availability() -> Availability:
    """Return whether Numba can be imported and runs a kernel correctly. Does not raise errors."""
    if importlib.util.find_spec("numba") is None:
        return Availability(ok=False, reason="Numba is not installed", remedy=INSTALL)
    invalid = invalid_variable()
    if invalid is not None:
        return invalid
    try:
        with _without_colorama():
            import numba
    except Exception as error:  # ImportError, or any other error of a broken llvmlite
        return Availability(
            ok=False, reason=f"Numba cannot be imported ({_one_line(error)})", remedy=REINSTALL
        )
    config: Any = numba.config  # Any, as Numba creates the attributes at import
    if config.DISABLE_JIT:  # users set it to debug or to measure test coverage
        return Availability(
            ok=False,
            reason="NUMBA_DISABLE_JIT is set, so Numba compiles nothing",
            remedy=unset("NUMBA_DISABLE_JIT"),
        )
    try:
        probe()
    except Exception as error:  # for example a broken compiler
        return Availability(
            ok=False, reason=f"a Numba kernel cannot be run ({_one_line(error)})", remedy=REINSTALL
        )
    return Availability(ok=True, reason=f"Numba {numba.__version__}")


def probe() -> NumbaState:
    """Run a small kernel, compiling it or loading it from the cache, and return the settings.

    Raises:
        RuntimeError: the result of the kernel is wrong.
        Exception: any error of Numba, for example of a broken compiler.
    """
    import numba

    from backends.numba.kernels import chunk, disk_cache

    config: Any = numba.config  # Any, as Numba creates the attributes at import
    numbers, copied = np.arange(4, dtype=np.float32), np.zeros(4, np.float32)
    reverse = np.array([[4, 1, 0, 1, 1, 3, -1, 1]])
    chunk.copy_blocks(reverse, numbers, copied)  # trainings use the same compiled code
    if not np.array_equal(copied, numbers[::-1]):
        raise RuntimeError("a compiled kernel gave a wrong result")
    folder = chunk.copy_blocks.stats.cache_path
    cache = None if folder is None else Path(folder)
    return NumbaState(config.NUMBA_NUM_THREADS, cache, tuple(disk_cache.problems.values()))


@contextmanager
def _without_colorama() -> Iterator[None]:
    """Hide the package colorama while Numba is imported.

    With it, Numba replaces `sys.stdout` and `sys.stderr` several times, and colorama writes a
    control sequence to stdout at exit. Only the colors of Numba's error messages are lost.
    """
    modules: dict[str, Any] = sys.modules
    installed = modules.get("colorama")
    modules["colorama"] = None
    try:
        yield
    finally:
        del modules["colorama"]
        if installed is not None:
            modules["colorama"] = installed


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
