"""Facts about the machine and the software on which benchmark figures depend."""

import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import cpuinfo
import threadpoolctl

from benchmarks.storage.schema import Host, ThreadPool

ROOT = Path(__file__).parents[1]
BUNDLED_COMMIT = ROOT / "COMMIT"  # in place of git; tools/gpu_bundle writes it
PACKAGES = (
    "numpy", "numba", "scipy", "array-api-compat", "cupy-cuda12x", "cupy-cuda13x",
    "torch", "jax", "jaxlib", "scikit-learn", "pytest-benchmark",
)  # fmt: skip
_VECTOR_BITS = {"avx512f": 512, "avx2": 256, "sse2": 128}


def host_facts() -> Host:
    """Return the facts of this machine."""
    cpu = _cpu_info()
    gpu, driver = _gpu()
    commit, dirty = code_version()
    flags = cpu.get("flags", ())
    vector_bits = [bits for flag, bits in _VECTOR_BITS.items() if flag in flags]
    return Host(
        cpu=cpu.get("brand_raw") or platform.processor() or platform.machine(),
        cores=os.cpu_count() or 1,
        threads=usable_cores(),
        vector_width_bits=max(vector_bits, default=None),
        memory_bytes=_memory_bytes(),
        gpu=gpu,
        gpu_driver=driver,
        os=platform.platform(),
        python=platform.python_version(),
        blas=tuple(
            ThreadPool(pool["internal_api"], pool["version"], pool["num_threads"])
            for pool in threadpoolctl.threadpool_info()
        ),
        numba_threading_layer="none: serial kernels, shared among Python threads",
        load_average=_load_average(),
        versions=_versions(),
        commit=commit,
        dirty=dirty,
    )


@cache
def _cpu_info() -> dict[str, Any]:
    """Return the facts of py-cpuinfo, which takes a second to collect them."""
    return cpuinfo.get_cpu_info() or {}


def _memory_bytes() -> int | None:
    """Return the physical memory; None on Windows."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _load_average() -> tuple[float, ...]:
    """Return the load averages of 1, 5 and 15 minutes; none on Windows."""
    try:
        return os.getloadavg()
    except (AttributeError, OSError):
        return ()


def usable_cores() -> int:
    """Return the number of cores that this process, and so each contender, may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def blas_threads() -> int:
    """Return the number of threads that NumPy's matrix products may use."""
    pools = threadpoolctl.threadpool_info()
    return max((pool["num_threads"] for pool in pools if pool["user_api"] == "blas"), default=1)


def code_version() -> tuple[str | None, bool | None]:
    """Return the commit of the code and whether it has uncommitted changes; None if unknown."""
    if BUNDLED_COMMIT.exists():
        name, _, changed = BUNDLED_COMMIT.read_text(encoding="utf-8").strip().partition(" ")
        return name, bool(changed)
    commit = _output("git", "rev-parse", "HEAD")
    status = _output("git", "status", "--porcelain", "--untracked-files=no")
    return commit, None if status is None else bool(status)


def _gpu() -> tuple[str | None, str | None]:
    """Return the name and the driver version of the first NVIDIA GPU."""
    answer = _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    name, _, driver = (answer or "").partition("\n")[0].partition(", ")
    return name or None, driver or None


def _versions() -> dict[str, str]:
    """Return the versions of those of `PACKAGES` that are installed."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _output(*command: str) -> str | None:
    """Return what a program prints; None if it is not installed or fails."""
    try:
        result = subprocess.run(  # noqa: S603  # the commands are those above
            command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
