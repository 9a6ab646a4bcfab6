"""What it takes to compute with CuPy, looked at stage by stage.

CuPy's import says nothing of a GPU: it succeeds without a driver, and CUDA's libraries are loaded
when they are first needed. Only the computation at the end proves that a GPU works; the stages
before it exist to name what is missing. Holds for CuPy 13 and 14.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from types import ModuleType

from backends.availability import Availability

INSTALL = (
    'pip install --upgrade "cupy-cuda12x[ctk]" (or "cupy-cuda13x[ctk]" where `nvidia-smi` shows '
    "CUDA 13)"
)

LOWEST_CAPABILITY = (7, 0)  # what the kernels of backends/cupy/kernels are compiled for, and tested


def probe() -> Iterator[tuple[str, Availability | None]]:
    """Yield the name and the finding of each stage, None behind the first that fails; never raise.

    The stages in their order: "CuPy", "driver", "device", "NVRTC", "cuBLAS", "test kernel".
    """
    failed = False
    for name, examine in _STAGES.items():
        if failed:
            yield name, None
            continue
        try:
            finding = examine()
        except Exception as error:  # a broken installation raises whatever it runs into
            finding = Availability(
                ok=False,
                reason=f"{name}: {type(error).__name__}: {_summary(error)}",
                remedy=f"check that driver, CUDA and CuPy fit each other: {INSTALL}",
            )
        failed = not finding.ok
        yield name, finding


def availability() -> Availability:
    """Return the device, or the first stage that fails; never raise."""
    findings = {stage: finding for stage, finding in probe() if finding is not None}
    *_, last = findings.values()
    return findings["device"] if last.ok else last


def describe_device() -> str:
    """Return name and compute capability of the current device."""
    runtime = _runtime()
    properties = runtime.getDeviceProperties(runtime.getDevice())
    return f"{properties['name'].decode()}, sm_{properties['major']}{properties['minor']}"


def _compute_capability() -> tuple[int, int]:
    runtime = _runtime()
    properties = runtime.getDeviceProperties(runtime.getDevice())
    return properties["major"], properties["minor"]


def multiply_in_float32() -> None:
    """Have float32 matrices multiplied as such in this process, even where CUPY_TF32=1 is set.

    CuPy looks at the variable when it first multiplies, unless somebody has said before what it is
    to do; to say so, there is but this function. TF32 has 10 bits behind the point, of which no
    result here would tell.
    """
    linalg = importlib.import_module("cupy._core._routines_linalg")
    linalg.set_compute_type("float32", linalg.COMPUTE_TYPE_DEFAULT)


def cuda_version(number: int) -> str:
    """Return CUDA's version number, such as 12080, as "12.8"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _package() -> Availability:
    if importlib.util.find_spec("cupy") is None:
        return Availability(
            ok=False, reason="CuPy is not installed", remedy=f"for an NVIDIA GPU: {INSTALL}"
        )
    try:
        cupy = _cupy()
    except Exception as error:  # not only ImportError: compiled modules raise all sorts of things
        return Availability(
            ok=False,
            reason=f"CuPy is installed but cannot be imported ({_summary(error)})",
            remedy=f"reinstall it: {INSTALL}",
        )
    return Availability(ok=True, reason=f"CuPy {cupy.__version__}")


def _driver() -> Availability:
    version = _runtime().driverGetVersion()  # 0 where there is none; does not raise
    if version == 0:
        return Availability(
            ok=False,
            reason="no NVIDIA driver was found",
            remedy="install the driver of the GPU; `nvidia-smi` must list it",
        )
    return Availability(ok=True, reason=f"CUDA {cuda_version(version)}")


def _device() -> Availability:
    runtime = _runtime()
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        code = str(error).partition(":")[0]
        if code == "cudaErrorInsufficientDriver":
            supported = cuda_version(runtime.driverGetVersion())
            return Availability(
                ok=False,
                reason=f"the driver supports CUDA {supported}, this CuPy needs {_cuda_major()}",
                remedy=f"update the driver, or install the CuPy of the driver's CUDA: {INSTALL}",
            )
        if code != "cudaErrorNoDevice":
            return Availability(
                ok=False,
                reason=f"the driver reports {_summary(error)}",
                remedy="`nvidia-smi` must list the GPU without an error",
            )
        count = 0
    if count == 0:
        return Availability(
            ok=False,
            reason="the driver sees no GPU",
            remedy="check CUDA_VISIBLE_DEVICES, and that `nvidia-smi` lists the GPU",
        )
    device = describe_device()
    if _compute_capability() < LOWEST_CAPABILITY:
        return Availability(
            ok=False,
            reason=f"the kernels need a GPU from sm_70 (Volta) on, this is {device}",
            remedy="take a newer GPU, or --backend numba",
        )
    return Availability(ok=True, reason=device)


def _nvrtc() -> Availability:
    try:
        major, minor = _cupy().cuda.nvrtc.getVersion()
    except RuntimeError as error:  # in CuPy 14 a subclass of it
        return Availability(
            ok=False,
            reason=f"NVRTC cannot be loaded ({_summary(error)})",
            remedy=_install_libraries(),
        )
    return Availability(ok=True, reason=f"{major}.{minor}")


def _cublas() -> Availability:
    try:
        importlib.import_module("cupy_backends.cuda.libs.cublas")
    except ImportError as error:
        return Availability(
            ok=False,
            reason=f"cuBLAS cannot be loaded ({_summary(error)})",
            remedy=_install_libraries(),
        )
    try:
        multiply_in_float32()
    except (ImportError, AttributeError) as error:
        return Availability(
            ok=False,
            reason=f"this CuPy cannot be told to do without TF32 ({_summary(error)})",
            remedy=f'install one that can: pip install "cupy-cuda{_cuda_major()}x[ctk]>=13.6,<15"',
        )
    return Availability(ok=True, reason="loaded")


def _test_kernel() -> Availability:
    """Compile and run some kernels, and multiply two matrices."""
    cupy = _cupy()
    try:
        x = cupy.arange(32, dtype=cupy.float32)
        product = float(((x + 1).reshape(1, 32) @ x.reshape(32, 1))[0, 0])
    except cupy.cuda.memory.OutOfMemoryError as error:
        return Availability(
            ok=False,
            reason=f"the GPU has no free memory ({_summary(error)})",
            remedy="end what uses it (`nvidia-smi` lists the processes), or hide this GPU from the "
            "program: CUDA_VISIBLE_DEVICES=1 leaves the second one",
        )
    expected = float(sum((k + 1) * k for k in range(32)))
    if product != expected:
        return Availability(
            ok=False,
            reason=f"a test kernel returned {product}, expected {expected}",
            remedy="run `dcgmi diag -r 3`; the GPU computes wrong results",
        )
    return Availability(ok=True, reason="a kernel and a matrix product gave the right result")


_STAGES: dict[str, Callable[[], Availability]] = {
    "CuPy": _package,
    "driver": _driver,
    "device": _device,
    "NVRTC": _nvrtc,
    "cuBLAS": _cublas,
    "test kernel": _test_kernel,
}


def _cupy() -> ModuleType:
    return importlib.import_module("cupy")


def _runtime() -> ModuleType:
    return importlib.import_module("cupy.cuda.runtime")


def _cuda_major() -> int:
    """Return the major version of CUDA that CuPy was built for."""
    major: int = _runtime().runtimeGetVersion() // 1000
    return major


def _install_libraries() -> str:
    return f'pip install --upgrade "cupy-cuda{_cuda_major()}x[ctk]"'


def _summary(error: BaseException) -> str:
    """Return the first line of what is behind an error; CuPy wraps some in a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
