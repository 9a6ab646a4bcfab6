"""What works on this machine and what does not: the checks behind `mnist-accel doctor`.

A check is a function that yields findings; nothing is fetched, and nothing is changed but Numba's
cache. What a check needs is imported by it, so that a broken package spoils no other check.
"""

import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Literal, TypeAlias

from mnist_accel._version import __version__
from mnist_accel.util.text import abbreviate_home, one_line

Status: TypeAlias = Literal["ok", "WARN", "problem", "skipped"]

# Findings that decide whether the program can be used at all.
BACKEND = "backend auto"
DATA = "data"

# The distributions that pyproject.toml names as dependencies.
PACKAGES = (
    "array-api-compat",
    "matplotlib",
    "numba",
    "numpy",
    "pillow",
    "platformdirs",
    "pooch",
    "rich",
    "safetensors",
    "scipy",
    "threadpoolctl",
)

# Stages of CuPy that fail where there is no GPU; the later ones fail where there is one.
_STAGES_WITHOUT_GPU = ("CuPy", "driver", "device")

_BLAS_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        name: what was looked at.
        status: "WARN" where something is missing that one can do without, or is slow; "skipped"
            where something before it already failed.
        detail: what was found, in words.
        remedy: the command or the step that mends it; empty where nothing is wrong.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""


def diagnose() -> list[Finding]:
    """Go through all checks; the user's home folder reads `~` in what they find."""
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            findings.extend(check())
        except Exception as error:  # whatever is broken, the other checks are still of use
            name = check.__name__.strip("_").replace("_", " ")
            findings.append(
                Finding(
                    name,
                    "problem",
                    f"cannot be looked at ({type(error).__name__}: {one_line(error)})",
                    "reinstall mnist-accel; if that does not help, report this",
                )
            )
    return [
        replace(f, detail=abbreviate_home(f.detail), remedy=abbreviate_home(f.remedy))
        for f in findings
    ]


def _python() -> Iterator[Finding]:
    detail = f"{platform.python_version()}, {platform.platform()}"
    yield Finding("Python", "ok", detail)
    yield Finding("mnist-accel", "ok", f"{__version__}, {Path(__file__).parent}")


def _packages() -> Iterator[Finding]:
    versions = {name: _version(name) for name in PACKAGES}
    found = [f"{name} {version}" for name, version in versions.items() if version]
    missing = [name for name, version in versions.items() if not version]
    yield Finding("packages", "ok", ", ".join(found))
    if missing:
        names = " ".join(missing)
        yield Finding("packages", "problem", f"missing: {names}", f"pip install {names}")


def _cupy_wheels() -> Iterator[Finding]:
    """Look for two distributions that install the same package over each other."""
    names = {str(d.metadata["Name"]).lower().replace("_", "-") for d in metadata.distributions()}
    wheels = sorted(n for n in names if re.fullmatch(r"(amd-)?cupy(-cuda\d+x?|-rocm[-\d]+)?", n))
    if len(wheels) > 1:
        keep = max((n for n in wheels if n.startswith("cupy-cuda")), default="cupy-cuda12x")
        yield Finding(
            "CuPy wheels",
            "problem",
            f"{' and '.join(wheels)} overwrite each other's files",
            f'pip uninstall -y {" ".join(wheels)} && pip install "{keep}[ctk]"',
        )


def _gpu() -> Iterator[Finding]:
    from backends import probe_cupy

    for stage, found in probe_cupy():
        name = stage if stage == "CuPy" else f"GPU: {stage}"
        if found is None:
            yield Finding(name, "skipped", "not reached")
        elif found.ok:
            yield Finding(name, "ok", found.reason)
        else:
            status: Status = "WARN" if stage in _STAGES_WITHOUT_GPU else "problem"
            yield Finding(name, status, found.reason, found.remedy)


def _backends() -> Iterator[Finding]:
    from backends import (
        BackendUnavailableError,
        available_backends,
        select_backend,
    )

    for name, found in available_backends().items():
        if name != "cupy":  # looked at in detail above
            yield Finding(
                f"backend {name}", "ok" if found.ok else "WARN", found.reason, found.remedy
            )
    try:
        best = select_backend("auto", fallback=False)
    except BackendUnavailableError as error:
        yield Finding(BACKEND, "problem", error.availability.reason, "reinstall mnist-accel")
    else:
        yield Finding(BACKEND, "ok", f"{best.backend.name}: {best.reason}")


def _numba_kernels() -> Iterator[Finding]:
    from backends import available_backends, probe_numba

    settings = " ".join(sorted(name for name in os.environ if name.startswith("NUMBA_")))
    unset = f"unset {settings}" if settings else ""
    if not available_backends()["numba"].ok:
        yield Finding("Numba kernels", "skipped", "Numba cannot be used", unset)
        return
    state = probe_numba()
    if not state.compiles:
        yield Finding(
            "Numba kernels",
            "WARN",
            "they run as Python, hundreds of times slower (NUMBA_DISABLE_JIT is set)",
            "unset NUMBA_DISABLE_JIT",
        )
        return
    yield Finding("Numba kernels", "ok", "a kernel was compiled, or read from the cache, and ran")
    yield _threads(
        "Numba threads",
        state.threads,
        "plain threads, without a threading layer of Numba's",
        ("NUMBA_NUM_THREADS",),
    )
    if state.cache is not None:
        yield _writable(
            "Numba cache",
            state.cache,
            status="WARN",
            remedy="set NUMBA_CACHE_DIR to a folder that can be written, or kernels are compiled "
            "at each start",
        )


def _blas() -> Iterator[Finding]:
    import numpy as np  # noqa: F401  # loads its BLAS, for threadpoolctl to see
    from threadpoolctl import threadpool_info

    for pool in threadpool_info():
        if pool["user_api"] == "blas" and "numpy" in pool["filepath"]:
            detail = f"{pool['internal_api']} {pool['version']}"
            yield _threads("NumPy's BLAS", pool["num_threads"], detail, _BLAS_VARIABLES)


def _threads(name: str, threads: int, detail: str, variables: tuple[str, ...]) -> Finding:
    """Compare the size of a pool of threads with the cores that it may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    detail = f"{detail}: {threads} on {cores} cores"
    if threads == cores:
        return Finding(name, "ok", detail)
    guilty = [variable for variable in variables if variable in os.environ]
    if not guilty:
        return Finding(name, "ok", f"{detail}; the library chose so")
    named = " ".join(f"{variable}={os.environ[variable]}" for variable in guilty)
    return Finding(name, "WARN", f"{detail} ({named})", f"unset {' '.join(guilty)}")


def _data() -> Iterator[Finding]:
    from mnist_accel.data.sources.cache import DataCache
    from mnist_accel.data.sources.digests import MNIST
    from mnist_accel.data.sources.folders import ENVIRONMENT_VARIABLE, read_folder, user_folder
    from mnist_accel.data.sources.local_copies import LocalCopies
    from mnist_accel.errors import DataError

    folder = user_folder(MNIST.name, None)
    if folder is not None:
        named = f"{ENVIRONMENT_VARIABLE} names {folder}"
        try:
            read_folder(folder, MNIST)
        except (DataError, OSError) as error:
            remedy = f"put MNIST's four files there, or unset {ENVIRONMENT_VARIABLE}"
            yield Finding(DATA, "problem", f"{named}: {one_line(error)}", remedy)
        else:
            yield Finding(DATA, "ok", f"{named}: MNIST is there and intact")
        return
    cache = DataCache().folder(MNIST.name)
    fetch = "python -m mnist_accel data"
    if cache.is_dir():
        try:
            read_folder(cache, MNIST)
        except (DataError, OSError) as error:
            yield Finding(DATA, "WARN", f"the cached copy is fetched anew: {error}", fetch)
        else:
            yield Finding(DATA, "ok", f"MNIST is in {cache}, and intact")
    else:
        try:
            _, source = LocalCopies().read(MNIST)
        except (DataError, OSError):
            yield Finding(DATA, "WARN", "MNIST is not here yet; it is fetched when needed", fetch)
        else:
            yield Finding(DATA, "ok", f"MNIST is here and intact: {source}")
    yield _writable(
        "data cache",
        cache,
        status="WARN",
        remedy=f"mend its permissions, or put MNIST in a folder and name it in "
        f"{ENVIRONMENT_VARIABLE}",
    )


def _trials() -> Iterator[Finding]:
    from mnist_accel.autotune.cache import trials_folder

    found = _writable(
        "trials",
        trials_folder(),
        status="WARN",
        remedy="mend its permissions, or each training measures its threads anew",
    )
    if found.status == "ok":
        count = len(list(trials_folder().glob("*.json")))
        detail = f"{count or 'none'} remembered in {trials_folder()}; remove it to measure anew"
        found = replace(found, detail=detail)
    yield found


def _runs() -> Iterator[Finding]:
    from mnist_accel.runs.folder import DEFAULT_PARENT

    yield _writable(
        "run folder",
        DEFAULT_PARENT.absolute(),
        status="problem",
        remedy="work in a folder that can be written, or train with --out DIR",
    )


def _writable(name: str, folder: Path, *, status: Status, remedy: str) -> Finding:
    """Try to write to a folder, or to where it would be made, leaving nothing behind."""
    from mnist_accel.util.files import check_writable

    try:
        check_writable(folder)
    except OSError as error:
        return Finding(
            name, status, f"{folder} cannot be written ({error.strerror or error})", remedy
        )
    return Finding(name, "ok", f"{folder} can be written")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _cupy_wheels,
    _gpu,
    _backends,
    _numba_kernels,
    _blas,
    _data,
    _trials,
    _runs,
)
