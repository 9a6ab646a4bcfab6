"""Checks of the GPU, the backends and their threads."""

import os
from collections.abc import Iterator
from dataclasses import replace

from mnist_accel.diagnostics.findings import (
    BACKEND,
    Finding,
    Status,
    threads_finding,
    writable_finding,
)

# Checks of CuPy that fail without a GPU. If a later one fails, a GPU is present but unusable.
_FAIL_WITHOUT_GPU = ("CuPy", "driver", "device")

# A sparse linear layer with SGD, and a convolution with max-pooling.
_COMPARED_RECIPES = ("two-layer", "cnn")
_COMPARED_IMAGES = 100

_COMPARE = "python -m mnist_accel compare --backends numpy"

BLAS_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def gpu() -> Iterator[Finding]:
    """Check the GPU from the driver to a test kernel."""
    from backends import probe_cupy

    for check, found in probe_cupy():
        name = check if check == "CuPy" else f"GPU: {check}"
        if found is None:
            yield Finding(name, "skipped", "an earlier check failed")
        elif found.ok:
            yield Finding(name, "ok", found.reason)
        else:
            status: Status = "WARN" if check in _FAIL_WITHOUT_GPU else "problem"
            yield Finding(name, status, found.reason, found.remedy)


def backends() -> Iterator[Finding]:
    """Check which backends can run, and which one "auto" selects."""
    from backends import BackendUnavailableError, available_backends, select_backend

    for name, found in available_backends().items():
        if name != "cupy":  # see `gpu`
            status: Status = "ok" if found.ok else "WARN"
            yield Finding(f"backend {name}", status, found.reason, found.remedy)
    try:
        best = select_backend("auto", fallback=False)
    except BackendUnavailableError as error:
        yield Finding(BACKEND, "problem", error.availability.reason, "reinstall mnist-accel")
    else:
        yield Finding(BACKEND, "ok", f"{best.backend.name}: {best.reason}")


def numba_kernels() -> Iterator[Finding]:
    """Check that Numba compiles kernels, and its threads."""
    from backends import backend_availability, probe_numba, unset

    if not backend_availability("numba").ok:
        settings = sorted(name for name in os.environ if name.startswith("NUMBA_"))
        remedy = unset(*settings) if settings else ""
        yield Finding("Numba kernels", "skipped", "the backend numba cannot run", remedy)
        return
    state = probe_numba()
    yield Finding("Numba kernels", "ok", "a test kernel was compiled, or loaded from the cache")
    yield threads_finding(
        "Numba threads", state.threads, "thread pool of this program", ("NUMBA_NUM_THREADS",)
    )


def compiled_training() -> Iterator[Finding]:
    """Compare a few compiled steps of each backend with eager steps of NumPy."""
    import numpy as np

    from backends import backend_availability, get_backend
    from mnist_accel.data import load_dataset
    from mnist_accel.diagnostics.compare import compare_backends

    whole = load_dataset("digits")
    kept = slice(_COMPARED_IMAGES)
    images = whole.x_train[kept]
    digits = replace(
        whole,
        # Gray pixels become 0. Most pixels are then 0, as in MNIST, so sparse input is used.
        x_train=np.where(images < 128, 0, images),
        t_train=whole.t_train[kept],
        x_test=whole.x_test[kept],
        t_test=whole.t_test[kept],
    )
    for name in ("cupy", "numba"):
        if not backend_availability(name).ok:
            continue
        differences = []
        for recipe in _COMPARED_RECIPES:
            _, result = compare_backends(
                recipe, [get_backend("numpy"), get_backend(name)], digits, batch_size=16
            )
            if result.first_divergence is not None:
                step, tensor = result.first_divergence
                differences.append(f"{recipe} at step {step} ({tensor})")
        if differences:
            yield Finding(
                f"compiled training {name}",
                "problem",
                f"differs from NumPy: {', '.join(differences)}",
                f"train with --backend numpy; report the output of {_COMPARE},{name}",
            )
        else:
            detail = f"10 steps of {' and '.join(_COMPARED_RECIPES)} agree with eager NumPy"
            yield Finding(f"compiled training {name}", "ok", detail)


def numba_cache() -> Iterator[Finding]:
    """Check the folder of compiled code, after kernels were loaded from it or compiled."""
    from backends import backend_availability, probe_numba

    if not backend_availability("numba").ok:
        return
    state = probe_numba()
    remedy = (
        "set NUMBA_CACHE_DIR to a writable folder with free space; otherwise each start of the "
        "program compiles the kernels again"
    )
    for problem in state.cache_problems:
        yield Finding("Numba cache", "WARN", problem, remedy)
    if not state.cache_problems and state.cache is not None:
        yield writable_finding("Numba cache", state.cache, otherwise="WARN", remedy=remedy)


def blas() -> Iterator[Finding]:
    """Report NumPy's BLAS, and check its threads."""
    from backends import get_backend

    name = "NumPy's BLAS"
    numpy = get_backend("numpy")
    library = numpy.device_info().libraries["blas"]
    if numpy.max_threads is None:
        detail = f"{library}, which chooses its number of threads itself: --threads cannot limit it"
        yield Finding(name, "ok", detail)
    else:
        yield threads_finding(name, numpy.max_threads, library, BLAS_VARIABLES)
