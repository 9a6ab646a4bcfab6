"""Checks whether CuPy can compute on this machine.

`import cupy` succeeds without a driver, and CuPy loads CUDA libraries only when they are needed.
Therefore only the last check, a computation, proves that a GPU works. The earlier checks find what
is missing. The checks support CuPy 13 and 14. CuPy is imported inside the functions, because it may
not be installed.
"""

import importlib.util
from collections.abc import Callable, Iterator
from types import ModuleType

from backends.availability import Availability, pip
from backends.cupy.launch import clusters

_OR_CUDA_13 = "(or cupy-cuda13x if `nvidia-smi` shows CUDA 13)"
INSTALL = f"{pip('install', '--upgrade', 'cupy-cuda12x[ctk]')} {_OR_CUDA_13}"
REINSTALL = f"{pip('install', '--force-reinstall', 'cupy-cuda12x[ctk]')} {_OR_CUDA_13}"

MIN_CAPABILITY = (7, 0)  # lowest compute capability for which the kernels are compiled and tested
MIN_CAPABILITY_OF_CUDA_13 = (7, 5)
MIN_CUDA_OF_CLUSTERS = (12, 1)  # compiles asynchronous stores between blocks (PTX 8.1)


def probe() -> Iterator[tuple[str, Availability | None]]:
    """Yield the name and the result of each check; never raise.

    The checks are "CuPy", "driver", "device", "NVRTC", "cuBLAS" and "test kernel". After the first
    failure, the other checks do not run, and their results are None.
    """
    failed = False
    for name, check in _CHECKS.items():
        if failed:
            yield name, None
            continue
        try:
            result = check()
        except Exception as error:  # a broken installation may raise any exception
            result = _failure(
                f"{name}: {type(error).__name__}: {_summary(error)}",
                f"install a CuPy that matches the versions of driver and CUDA: {INSTALL}",
            )
        failed = not result.ok
        yield name, result


def availability() -> Availability:
    """Return the result of the check "device", or of the first check that fails; never raise."""
    results = {name: result for name, result in probe() if result is not None}
    *_, last = results.values()
    return results["device"] if last.ok else last


def describe_device() -> str:
    """Return name and architecture of the current device, such as "NVIDIA H200, sm_90"."""
    runtime = _runtime()
    properties = runtime.getDeviceProperties(runtime.getDevice())
    return f"{properties['name'].decode()}, sm_{properties['major']}{properties['minor']}"


def _compute_capability() -> tuple[int, int]:
    runtime = _runtime()
    properties = runtime.getDeviceProperties(runtime.getDevice())
    return properties["major"], properties["minor"]


def disable_tf32() -> None:
    """Disable TF32 in matrix products of float32 for this process, even if CUPY_TF32=1 is set.

    TF32 rounds the factors to 10 bits of mantissa. CuPy has no public function to disable TF32. It
    reads CUPY_TF32 at the first matrix product, unless a compute type is already set.
    """
    import cupy._core._routines_linalg as linalg

    linalg.set_compute_type("float32", linalg.COMPUTE_TYPE_DEFAULT)


def cuda_version(number: int) -> str:
    """Return the text "12.8" for CUDA's version number 12080."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _failure(reason: str, remedy: str) -> Availability:
    return Availability(ok=False, reason=reason, remedy=remedy)


def _package() -> Availability:
    if importlib.util.find_spec("cupy") is None:
        return _failure("CuPy is not installed", f"for an NVIDIA GPU: {INSTALL}")
    try:
        import cupy
    except Exception as error:  # a compiled module may raise any exception
        return _failure(
            f"CuPy is installed but cannot be imported ({_summary(error)})",
            f"reinstall it: {REINSTALL}",
        )
    return Availability(True, f"CuPy {cupy.__version__}")


def _driver() -> Availability:
    version = _runtime().driverGetVersion()  # 0 without a driver; does not raise
    if version == 0:
        return _failure(
            "no NVIDIA driver was found",
            "install the NVIDIA driver, after which `nvidia-smi` must list the GPU",
        )
    return Availability(True, f"CUDA {cuda_version(version)}")


def _device() -> Availability:
    runtime = _runtime()
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        code = str(error).partition(":")[0]
        if code == "cudaErrorInsufficientDriver":
            supported = cuda_version(runtime.driverGetVersion())
            return _failure(
                f"the driver supports CUDA {supported}, but this CuPy needs CUDA {_cuda_major()}",
                f"update the driver, or install the CuPy for its CUDA version: {INSTALL}",
            )
        if code != "cudaErrorNoDevice":
            return _failure(
                f"the driver reports {_summary(error)}",
                "repair or reinstall the driver until `nvidia-smi` lists the GPU without an error",
            )
        count = 0
    if count == 0:
        return _failure(
            "the driver finds no GPU",
            "check that `nvidia-smi` lists the GPU, and that CUDA_VISIBLE_DEVICES does not hide it",
        )
    device = describe_device()
    if _compute_capability() < MIN_CAPABILITY:
        return _failure(
            f"the kernels need sm_70 (Volta) or later, but this GPU is {device}",
            "use a newer GPU, or the backend numba",
        )
    return Availability(True, device)


def _nvrtc() -> Availability:
    from cupy.cuda import nvrtc

    try:
        major, minor = nvrtc.getVersion()
    except RuntimeError as error:  # CuPy 14 raises a subclass of RuntimeError
        return _failure(f"NVRTC cannot be loaded ({_summary(error)})", _install_libraries())
    if major >= 13 and _compute_capability() < MIN_CAPABILITY_OF_CUDA_13:
        return _failure(
            f"NVRTC of CUDA {major} compiles for sm_75 and later, but this GPU is "
            f"{describe_device()}",
            f"install the CuPy for CUDA 12: {pip('install', 'cupy-cuda12x[ctk]')}",
        )
    has_clusters = _compute_capability() >= divmod(clusters.MIN_CAPABILITY, 10)
    if has_clusters and (major, minor) < MIN_CUDA_OF_CLUSTERS:
        return _failure(
            f"this GPU, {describe_device()}, needs NVRTC of CUDA 12.1 or later, not of CUDA "
            f"{major}.{minor}",
            _install_libraries(),
        )
    return Availability(True, f"{major}.{minor}")


def _cublas() -> Availability:
    try:
        import cupy_backends.cuda.libs.cublas  # noqa: F401 - loads the library
    except ImportError as error:
        return _failure(f"cuBLAS cannot be loaded ({_summary(error)})", _install_libraries())
    try:
        disable_tf32()
    except (ImportError, AttributeError) as error:
        return _failure(
            f"this CuPy has no function to disable TF32 ({_summary(error)})",
            f"install another version: {pip('install', f'{_package_name()}>=13.6,<15')}",
        )
    return Availability(True, "loaded")


def _test_kernel() -> Availability:
    """Compile and run some kernels, and multiply two matrices."""
    import cupy

    try:
        x = cupy.arange(32, dtype=cupy.float32)
        product = float(((x + 1).reshape(1, 32) @ x.reshape(32, 1))[0, 0])
    except cupy.cuda.memory.OutOfMemoryError as error:
        return _failure(
            f"the GPU has no free memory ({_summary(error)})",
            "end other processes that use its memory (`nvidia-smi` lists them), or use another "
            "GPU: set CUDA_VISIBLE_DEVICES=1 for the second one",
        )
    expected = float(sum((k + 1) * k for k in range(32)))
    if product != expected:
        return _failure(
            f"a test kernel returned {product}, expected {expected}",
            "the GPU computes wrong results: diagnose it with `dcgmi diag -r 3`",
        )
    return Availability(True, "a kernel and a matrix product computed the right result")


_CHECKS: dict[str, Callable[[], Availability]] = {
    "CuPy": _package,
    "driver": _driver,
    "device": _device,
    "NVRTC": _nvrtc,
    "cuBLAS": _cublas,
    "test kernel": _test_kernel,
}


def _runtime() -> ModuleType:
    from cupy.cuda import runtime

    module: ModuleType = runtime
    return module


def _cuda_major() -> int:
    """Return the major version of CUDA that CuPy was built for."""
    major: int = _runtime().runtimeGetVersion() // 1000
    return major


def _install_libraries() -> str:
    return pip("install", "--upgrade", _package_name())


def _package_name() -> str:
    """Return the name of the installed CuPy, with the libraries of CUDA."""
    return f"cupy-cuda{_cuda_major()}x[ctk]"


def _summary(error: BaseException) -> str:
    """Return the first line of the innermost cause of an error.

    CuPy raises some errors from their cause, with a message of many lines.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
