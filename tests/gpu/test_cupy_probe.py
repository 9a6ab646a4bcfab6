"""The checks of CuPy report the first part that is missing, and how to install it.

Most tests run without a GPU, with CuPy's calls of the driver replaced.
"""

import importlib
import re
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from backends import pip
from backends.cupy.backend import CupyBackend
from backends.cupy.probe import probe

DRIVER_TOO_OLD, NO_DEVICE, SYSTEM_NOT_READY, UNKNOWN = 35, 100, 802, 999  # cudaError_t

CHECKS = ["CuPy", "driver", "device", "NVRTC", "cuBLAS", "test kernel"]


@pytest.fixture
def machine(cupy, monkeypatch):
    """Simulate a machine with one working GPU by replacing CuPy's calls of the driver."""
    runtime = cupy.cuda.runtime
    monkeypatch.setattr(runtime, "driverGetVersion", lambda: 12080)
    monkeypatch.setattr(runtime, "getDeviceCount", lambda: 1)
    monkeypatch.setattr(runtime, "getDevice", lambda: 0)
    properties = {"name": b"NVIDIA Simulated", "major": 9, "minor": 0}
    monkeypatch.setattr(runtime, "getDeviceProperties", lambda device: properties)
    monkeypatch.setattr(runtime, "memGetInfo", lambda: (3 << 30, 4 << 30))
    monkeypatch.setattr(cupy.cuda.nvrtc, "getVersion", lambda: (12, 9))
    cublas = "cupy_backends.cuda.libs.cublas"
    monkeypatch.setitem(sys.modules, cublas, ModuleType(cublas))
    monkeypatch.setattr(cupy, "arange", np.arange)

    def make_fail(module, name, error):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr(module, name, fail)

    return SimpleNamespace(runtime=runtime, make_fail=make_fail)


def failure():
    """Return the check that fails, the reason and the remedy."""
    results = dict(probe())
    assert list(results) == CHECKS
    reached = [name for name, result in results.items() if result is not None]
    *passed, last = reached
    assert all(results[name].ok and not results[name].remedy for name in passed)
    assert reached == CHECKS[: len(reached)]
    availability = CupyBackend.availability()
    assert availability == results[last]
    assert not availability.ok
    assert "\n" not in availability.reason + availability.remedy
    return last, availability.reason, availability.remedy


def test_missing_cupy_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    check, reason, remedy = failure()
    assert (check, reason) == ("CuPy", "CuPy is not installed")
    assert pip("install", "--upgrade", "cupy-cuda12x[ctk]") in remedy


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        # CuPy wraps the cause in a message of several lines that begins with an empty line.
        (
            "try:\n    raise OSError('libfoo.so: cannot open shared object file')\n"
            "except OSError as error:\n"
            "    raise ImportError('\\n====\\nFailed to import CuPy.\\n') from error",
            "libfoo.so: cannot open shared object file",
        ),
        ("raise AttributeError('_ARRAY_API not found\\nmore')", "_ARRAY_API not found"),
        ("raise SystemError", "SystemError"),
    ],
)
def test_failing_import_is_reported_with_its_cause(code, cause, tmp_path, monkeypatch):
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text(code)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    check, reason, remedy = failure()
    assert check == "CuPy"
    assert reason == f"CuPy is installed but cannot be imported ({cause})"
    assert remedy.startswith(f"reinstall it: {pip('install')}")


def test_missing_driver_is_reported(cupy):
    if cupy.cuda.runtime.driverGetVersion() != 0:
        pytest.skip("this machine has a driver")
    check, reason, remedy = failure()
    assert (check, reason) == ("driver", "no NVIDIA driver was found")
    assert "nvidia-smi" in remedy


def test_old_driver_is_reported(machine, monkeypatch):
    monkeypatch.setattr(machine.runtime, "driverGetVersion", lambda: 11040)
    error = machine.runtime.CUDARuntimeError(DRIVER_TOO_OLD)
    machine.make_fail(machine.runtime, "getDeviceCount", error)
    check, reason, remedy = failure()
    major = machine.runtime.runtimeGetVersion() // 1000
    assert check == "device"
    assert reason == f"the driver supports CUDA 11.4, but this CuPy needs CUDA {major}"
    assert remedy.startswith("update the driver")


def test_missing_gpu_is_reported(machine, monkeypatch):
    error = machine.runtime.CUDARuntimeError(NO_DEVICE)
    machine.make_fail(machine.runtime, "getDeviceCount", error)
    hidden = failure()
    monkeypatch.setattr(machine.runtime, "getDeviceCount", lambda: 0)
    assert failure() == hidden
    assert hidden[:2] == ("device", "the driver finds no GPU")
    assert "CUDA_VISIBLE_DEVICES" in hidden[2]


@pytest.mark.parametrize(
    ("code", "name"),
    [(SYSTEM_NOT_READY, "cudaErrorSystemNotReady"), (UNKNOWN, "cudaErrorUnknown")],
)
def test_error_of_the_driver_is_reported(code, name, machine):
    machine.make_fail(machine.runtime, "getDeviceCount", machine.runtime.CUDARuntimeError(code))
    check, reason, remedy = failure()
    assert check == "device"
    assert reason.startswith(f"the driver reports {name}")
    assert "nvidia-smi" in remedy


def test_missing_nvrtc_is_reported(cupy, machine):
    error = RuntimeError("CuPy failed to load libnvrtc.so.12: OSError")
    machine.make_fail(cupy.cuda.nvrtc, "getVersion", error)
    check, reason, remedy = failure()
    major = machine.runtime.runtimeGetVersion() // 1000
    assert check == "NVRTC"
    assert reason == f"NVRTC cannot be loaded ({error})"
    assert remedy == pip("install", "--upgrade", f"cupy-cuda{major}x[ctk]")


def test_nvrtc_missing_on_this_machine_is_reported(cupy, monkeypatch):
    try:
        cupy.cuda.nvrtc.getVersion()
    except RuntimeError:
        pass
    else:
        pytest.skip("this machine has NVRTC")
    monkeypatch.setattr(cupy.cuda.runtime, "driverGetVersion", lambda: 12080)
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", lambda: 1)
    monkeypatch.setattr("backends.cupy.probe.describe_device", lambda: "simulated")
    monkeypatch.setattr("backends.cupy.probe._compute_capability", lambda: (9, 0))
    check, reason, _ = failure()
    assert check == "NVRTC"
    assert "libnvrtc" in reason


def test_missing_cublas_is_reported(machine, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs.cublas", None)
    check, reason, remedy = failure()
    assert check == "cuBLAS"
    assert reason.startswith("cuBLAS cannot be loaded (")
    assert "[ctk]" in remedy


def test_cublas_missing_on_this_machine_is_reported(machine, monkeypatch):
    monkeypatch.delitem(sys.modules, "cupy_backends.cuda.libs.cublas")
    try:
        importlib.import_module("cupy_backends.cuda.libs.cublas")
    except ImportError:
        pass
    else:
        pytest.skip("this machine has cuBLAS")
    check, reason, _ = failure()
    assert check == "cuBLAS"
    assert "libcublas" in reason


@pytest.mark.parametrize("missing", ["module", "function"])
def test_cupy_that_cannot_disable_tf32_is_reported(cupy, machine, monkeypatch, missing):
    """CuPy has no public function for this, so a new version may break it."""
    linalg = importlib.import_module("cupy._core._routines_linalg")
    if missing == "module":
        monkeypatch.setitem(sys.modules, linalg.__name__, None)
    else:
        monkeypatch.delattr(linalg, "set_compute_type")
    check, reason, remedy = failure()
    assert check == "cuBLAS"
    assert reason.startswith("this CuPy has no function to disable TF32 (")
    assert ">=13.6,<15" in remedy


def test_gpu_without_free_memory_is_reported(cupy, machine):
    machine.make_fail(cupy, "arange", cupy.cuda.memory.OutOfMemoryError(512, 0))
    check, reason, remedy = failure()
    assert check == "test kernel"
    assert reason.startswith("the GPU has no free memory (Out of memory allocating 512 bytes")
    assert "nvidia-smi" in remedy


def test_wrong_result_of_the_test_kernel_is_reported(cupy, machine, monkeypatch):
    monkeypatch.setattr(cupy, "arange", lambda n, dtype: np.zeros(n, dtype))
    assert failure()[:2] == ("test kernel", "a test kernel returned 0.0, expected 10912.0")


def test_unexpected_error_is_reported_as_a_failed_check(cupy, machine, monkeypatch):
    compilation = cupy.cuda.compiler.CompileException(
        "\nkernel.cu(3): error: no cuda_fp16.h\n", "source", "kernel.cu", (), "nvrtc"
    )
    machine.make_fail(cupy, "arange", compilation)
    check, reason, remedy = failure()
    assert check == "test kernel"
    assert reason.startswith("test kernel: CompileException: ")
    assert pip("install") in remedy
    error = machine.runtime.CUDARuntimeError(UNKNOWN)
    machine.make_fail(machine.runtime, "driverGetVersion", error)
    assert failure()[1].startswith("driver: CUDARuntimeError: cudaErrorUnknown")


def test_working_gpu_is_available_and_described(cupy, machine):
    availability = CupyBackend.availability()
    assert availability.ok
    assert availability.reason == "NVIDIA Simulated, sm_90"
    assert availability.remedy == ""
    info = CupyBackend().device_info()
    assert info.name == availability.reason
    assert info.memory_total_bytes == 4 << 30
    assert info.libraries["cupy"] == cupy.__version__
    assert info.libraries["cuda_driver"] == "12.8"
    assert re.fullmatch(r"\d+\.\d+", info.libraries["cuda_runtime"])


def test_gpu_below_sm_70_is_reported(machine, monkeypatch):
    old = {"name": b"NVIDIA Simulated", "major": 6, "minor": 1}
    monkeypatch.setattr(machine.runtime, "getDeviceProperties", lambda device: old)
    check, reason, remedy = failure()
    assert check == "device"
    assert reason == (
        "the kernels need sm_70 (Volta) or later, but this GPU is NVIDIA Simulated, sm_61"
    )
    assert remedy == "use a newer GPU, or the backend numba"


def test_sm_70_is_refused_with_cuda_13_and_accepted_with_cuda_12(cupy, machine, monkeypatch):
    volta = {"name": b"NVIDIA Simulated", "major": 7, "minor": 0}
    monkeypatch.setattr(machine.runtime, "getDeviceProperties", lambda device: volta)
    assert CupyBackend.availability().ok
    monkeypatch.setattr(cupy.cuda.nvrtc, "getVersion", lambda: (13, 0))
    check, reason, remedy = failure()
    assert check == "NVRTC"
    assert reason == (
        "NVRTC of CUDA 13 compiles for sm_75 and later, but this GPU is NVIDIA Simulated, sm_70"
    )
    assert pip("install", "cupy-cuda12x[ctk]") in remedy
    turing = {**volta, "minor": 5}
    monkeypatch.setattr(machine.runtime, "getDeviceProperties", lambda device: turing)
    assert CupyBackend.availability().ok


def test_cuda_12_0_is_refused_on_gpus_with_clusters(cupy, machine, monkeypatch):
    """It does not compile asynchronous stores between the blocks of a cluster."""
    monkeypatch.setattr(cupy.cuda.nvrtc, "getVersion", lambda: (12, 0))
    check, reason, remedy = failure()
    assert check == "NVRTC"
    assert reason == (
        "this GPU, NVIDIA Simulated, sm_90, needs NVRTC of CUDA 12.1 or later, not of CUDA 12.0"
    )
    assert remedy.startswith(pip("install", "--upgrade"))
    ada = {"name": b"NVIDIA Simulated", "major": 8, "minor": 9}
    monkeypatch.setattr(machine.runtime, "getDeviceProperties", lambda device: ada)
    assert CupyBackend.availability().ok
