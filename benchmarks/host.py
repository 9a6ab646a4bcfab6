"""Facts about the machine and the software, without which a figure means little."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import threadpoolctl

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "numpy", "numba", "scipy", "array-api-compat", "cupy-cuda12x", "cupy-cuda13x",
    "torch", "jax", "jaxlib", "scikit-learn", "pytest-benchmark",
)  # fmt: skip


def host_facts() -> dict[str, Any]:
    """Return what decides how fast things are here; None where a fact cannot be had."""
    cpu = _cpu_info()
    return {
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": usable_cores(),
        "vector_width_bits": _vector_width(cpu.get("flags", "").split()),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        **_gpu(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "blas": [
            {
                "name": pool["internal_api"],
                "version": pool["version"],
                "threads": pool["num_threads"],
            }
            for pool in threadpoolctl.threadpool_info()
        ],
        "numba_threading_layer": "none: serial kernels, shared among Python threads",
        "load_average": os.getloadavg(),
        "versions": _versions(),
        **_commit(),
    }


def usable_cores() -> int:
    """Return the number of cores that this process may use, as every contender's library does."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_info() -> dict[str, str]:
    """Return what the kernel tells of the first core; nothing where it tells nothing."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _vector_width(flags: list[str]) -> int | None:
    """Return the widest vector register of an x86 processor, in bits."""
    for flag, bits in (("avx512f", 512), ("avx2", 256), ("sse2", 128)):
        if flag in flags:
            return bits
    return None


def _gpu() -> dict[str, str | None]:
    answer = _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    name, _, driver = (answer or "").partition("\n")[0].partition(", ")
    return {"gpu": name or None, "gpu_driver": driver or None}


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # not installed: the report names what is there
    return versions


def _commit() -> dict[str, Any]:
    commit = _output("git", "rev-parse", "HEAD")
    status = _output("git", "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def _output(*command: str) -> str | None:
    """Return what a program prints; None where there is no such program, or it fails."""
    try:
        result = subprocess.run(  # noqa: S603  # the commands are those above
            command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
