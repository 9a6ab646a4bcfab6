"""The CuPy adapter: what of it runs without a GPU runs here for real, the rest by stand-ins.

The tests marked `gpu` need no stand-ins, and run where there is a GPU.
"""

import ctypes
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from backends import get_backend
from backends.cupy.backend import CupyBackend
from backends.cupy.launch import wgrad_update as descent
from backends.cupy.launch.fused_classifier import Head, HeadLayer
from backends.cupy.launch.tiles import SMALL
from backends.cupy.launch.wgrad_update import Layer, cut_linear
from backends.cupy.probe import probe
from mnist_accel.nn.parameters import ParameterVector

ROOT = Path(__file__).parents[2]
DRIVER_TOO_OLD, NO_DEVICE, SYSTEM_NOT_READY, UNKNOWN = 35, 100, 802, 999  # cudaError_t

STAGES = ["CuPy", "driver", "device", "NVRTC", "cuBLAS", "test kernel"]


@pytest.fixture
def cupy():
    return pytest.importorskip("cupy", reason="CuPy is not installed")


@pytest.fixture
def machine(cupy, monkeypatch):
    """A machine with one working GPU, pretended by replacing what CuPy asks the driver."""
    runtime = cupy.cuda.runtime
    monkeypatch.setattr(runtime, "driverGetVersion", lambda: 12080)
    monkeypatch.setattr(runtime, "getDeviceCount", lambda: 1)
    monkeypatch.setattr(runtime, "getDevice", lambda: 0)
    properties = {"name": b"NVIDIA Pretended", "major": 9, "minor": 0}
    monkeypatch.setattr(runtime, "getDeviceProperties", lambda device: properties)
    monkeypatch.setattr(runtime, "memGetInfo", lambda: (3 << 30, 4 << 30))
    monkeypatch.setattr(cupy.cuda.nvrtc, "getVersion", lambda: (12, 9))
    cublas = "cupy_backends.cuda.libs.cublas"
    monkeypatch.setitem(sys.modules, cublas, ModuleType(cublas))
    monkeypatch.setattr(cupy, "arange", np.arange)

    def break_by(module, name, error):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr(module, name, fail)

    return SimpleNamespace(runtime=runtime, break_by=break_by)


def failure():
    """Say why CuPy cannot be used, and at which stage that shows."""
    findings = dict(probe())
    assert list(findings) == STAGES
    reached = [stage for stage, finding in findings.items() if finding is not None]
    *passed, last = reached
    assert all(findings[stage].ok and not findings[stage].remedy for stage in passed)
    assert reached == STAGES[: len(reached)]
    availability = CupyBackend.availability()
    assert availability == findings[last]
    assert not availability.ok
    assert "\n" not in availability.reason + availability.remedy
    return last, availability.reason, availability.remedy


def test_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    stage, reason, remedy = failure()
    assert (stage, reason) == ("CuPy", "CuPy is not installed")
    assert 'pip install --upgrade "cupy-cuda12x[ctk]"' in remedy


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        # CuPy itself wraps what went wrong in a page that begins with a blank line.
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
def test_broken_installation(code, cause, tmp_path, monkeypatch):
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text(code)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    stage, reason, remedy = failure()
    assert stage == "CuPy"
    assert reason == f"CuPy is installed but cannot be imported ({cause})"
    assert remedy.startswith("reinstall it: pip install")


def test_no_driver(cupy):
    if cupy.cuda.runtime.driverGetVersion() != 0:
        pytest.skip("this machine has a driver")
    stage, reason, remedy = failure()
    assert (stage, reason) == ("driver", "no NVIDIA driver was found")
    assert "nvidia-smi" in remedy


def test_driver_too_old(machine, monkeypatch):
    monkeypatch.setattr(machine.runtime, "driverGetVersion", lambda: 11040)
    error = machine.runtime.CUDARuntimeError(DRIVER_TOO_OLD)
    machine.break_by(machine.runtime, "getDeviceCount", error)
    stage, reason, remedy = failure()
    major = machine.runtime.runtimeGetVersion() // 1000
    assert stage == "device"
    assert reason == f"the driver supports CUDA 11.4, this CuPy needs {major}"
    assert remedy.startswith("update the driver")


def test_no_visible_device(machine, monkeypatch):
    error = machine.runtime.CUDARuntimeError(NO_DEVICE)
    machine.break_by(machine.runtime, "getDeviceCount", error)
    hidden = failure()
    monkeypatch.setattr(machine.runtime, "getDeviceCount", lambda: 0)
    assert failure() == hidden
    assert hidden[:2] == ("device", "the driver sees no GPU")
    assert "CUDA_VISIBLE_DEVICES" in hidden[2]


@pytest.mark.parametrize(
    ("code", "name"),
    [(SYSTEM_NOT_READY, "cudaErrorSystemNotReady"), (UNKNOWN, "cudaErrorUnknown")],
)
def test_driver_reports_an_error(code, name, machine):
    machine.break_by(machine.runtime, "getDeviceCount", machine.runtime.CUDARuntimeError(code))
    stage, reason, remedy = failure()
    assert stage == "device"
    assert reason.startswith(f"the driver reports {name}")
    assert "nvidia-smi" in remedy


def test_nvrtc_missing(cupy, machine):
    error = RuntimeError("CuPy failed to load libnvrtc.so.12: OSError")
    machine.break_by(cupy.cuda.nvrtc, "getVersion", error)
    stage, reason, remedy = failure()
    major = machine.runtime.runtimeGetVersion() // 1000
    assert stage == "NVRTC"
    assert reason == f"NVRTC cannot be loaded ({error})"
    assert remedy == f'pip install --upgrade "cupy-cuda{major}x[ctk]"'


def test_nvrtc_missing_for_real(cupy, monkeypatch):
    try:
        cupy.cuda.nvrtc.getVersion()
    except RuntimeError:
        pass
    else:
        pytest.skip("this machine has NVRTC")
    monkeypatch.setattr(cupy.cuda.runtime, "driverGetVersion", lambda: 12080)
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", lambda: 1)
    monkeypatch.setattr("backends.cupy.probe.describe_device", lambda: "pretended")
    monkeypatch.setattr("backends.cupy.probe._compute_capability", lambda: (9, 0))
    stage, reason, _ = failure()
    assert stage == "NVRTC"
    assert "libnvrtc" in reason


def test_cublas_missing(machine, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs.cublas", None)
    stage, reason, remedy = failure()
    assert stage == "cuBLAS"
    assert reason.startswith("cuBLAS cannot be loaded (")
    assert "[ctk]" in remedy


def test_cublas_missing_for_real(machine, monkeypatch):
    monkeypatch.delitem(sys.modules, "cupy_backends.cuda.libs.cublas")
    try:
        importlib.import_module("cupy_backends.cuda.libs.cublas")
    except ImportError:
        pass
    else:
        pytest.skip("this machine has cuBLAS")
    stage, reason, _ = failure()
    assert stage == "cuBLAS"
    assert "libcublas" in reason


@pytest.mark.parametrize("missing", ["module", "function"])
def test_cupy_that_cannot_do_without_tf32(cupy, machine, monkeypatch, missing):
    """CuPy has no public function for it."""
    linalg = importlib.import_module("cupy._core._routines_linalg")
    if missing == "module":
        monkeypatch.setitem(sys.modules, linalg.__name__, None)
    else:
        monkeypatch.delattr(linalg, "set_compute_type")
    stage, reason, remedy = failure()
    assert stage == "cuBLAS"
    assert reason.startswith("this CuPy cannot be told to do without TF32 (")
    assert ">=13.6,<15" in remedy


def test_out_of_memory(cupy, machine):
    machine.break_by(cupy, "arange", cupy.cuda.memory.OutOfMemoryError(512, 0))
    stage, reason, remedy = failure()
    assert stage == "test kernel"
    assert reason.startswith("the GPU has no free memory (Out of memory allocating 512 bytes")
    assert "nvidia-smi" in remedy


def test_wrong_result(cupy, machine, monkeypatch):
    monkeypatch.setattr(cupy, "arange", lambda n, dtype: np.zeros(n, dtype))
    assert failure()[:2] == ("test kernel", "a test kernel returned 0.0, expected 10912.0")


def test_unforeseen_error_is_a_finding(cupy, machine, monkeypatch):
    compilation = cupy.cuda.compiler.CompileException(
        "\nkernel.cu(3): error: no cuda_fp16.h\n", "source", "kernel.cu", (), "nvrtc"
    )
    machine.break_by(cupy, "arange", compilation)
    stage, reason, remedy = failure()
    assert stage == "test kernel"
    assert reason.startswith("test kernel: CompileException: ")
    assert "pip install" in remedy
    error = machine.runtime.CUDARuntimeError(UNKNOWN)
    machine.break_by(machine.runtime, "driverGetVersion", error)
    assert failure()[1].startswith("driver: CUDARuntimeError: cudaErrorUnknown")


def test_working_gpu_is_described(cupy, machine):
    availability = CupyBackend.availability()
    assert availability.ok
    assert availability.reason == "NVIDIA Pretended, sm_90"
    assert availability.remedy == ""
    info = CupyBackend().device_info()
    assert info.name == availability.reason
    assert info.memory_total_bytes == 4 << 30
    assert info.libraries["cupy"] == cupy.__version__
    assert info.libraries["cuda_driver"] == "12.8"
    assert re.fullmatch(r"\d+\.\d+", info.libraries["cuda_runtime"])


def test_every_function_that_is_used_exists(cupy):
    xp = CupyBackend().xp
    files = [*ROOT.glob("backends/operations/*.py"), *ROOT.glob("mnist_accel/**/*.py")]
    used = {name for file in files for name in re.findall(r"\bxp\.(\w+)", file.read_text())}
    assert {"astype", "isfinite", "permute_dims", "reshape", "take"} <= used
    assert [name for name in used if not hasattr(xp, name)] == []


def test_parameters_are_views_of_the_vector(cupy, monkeypatch):
    """CuPy makes views without a driver, if it is given the memory."""

    def zeros(self, shape, *, dtype):
        host = np.zeros(shape, dtype)
        memory = cupy.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, 0)
        return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, 0))

    monkeypatch.setattr(CupyBackend, "zeros", zeros)
    shapes = {"W1": (3, 4), "b1": (4,), "W2": (2, 1, 3, 3)}
    parameters = ParameterVector(CupyBackend(), shapes, dtype="float32")
    first = parameters.flat.data.ptr
    offsets = {name: view.data.ptr - first for name, view in parameters.views.items()}
    assert offsets == {"W1": 0, "b1": 48, "W2": 64}
    assert {name: view.shape for name, view in parameters.views.items()} == shapes
    assert all(view.flags.c_contiguous for view in parameters.views.values())


on_the_gpu = pytest.mark.parametrize("backend", ["cupy"], indirect=True)


@pytest.mark.gpu
@on_the_gpu
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64", "bool"])
def test_round_trip(backend, dtype):
    host = np.arange(24).reshape(2, 3, 4).astype(dtype)
    back = backend.to_numpy(backend.asarray(host))
    assert type(back) is np.ndarray
    assert back.dtype == host.dtype
    np.testing.assert_array_equal(back, host)
    assert backend.asarray(host, dtype="float32").dtype == np.float32


@pytest.mark.gpu
@on_the_gpu
def test_copies_are_of_their_own_and_in_c_order(backend):
    host = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    device = backend.asarray(host)
    assert device.flags.c_contiguous
    before = host.copy()
    host[...] = -1
    first = backend.to_numpy(device)
    np.testing.assert_array_equal(first, before)
    device[...] = -2.0
    np.testing.assert_array_equal(first, before)
    transposed = backend.to_numpy(backend.asarray(before).T)
    assert transposed.flags.c_contiguous
    np.testing.assert_array_equal(transposed, before.T)
    assert backend.to_numpy(backend.xp.sum(backend.asarray(before))).shape == ()


@pytest.mark.gpu
@on_the_gpu
def test_real_device_is_described(backend):
    backend.synchronize()
    info = backend.device_info()
    assert re.search(r", sm_\d+$", info.name)
    assert info.memory_total_bytes > 0
    assert get_backend("auto").name == "cupy"


COMPUTE_TYPE = """
from cupy._core import _routines_linalg as linalg
from backends.cupy.backend import CupyBackend

CupyBackend()
print(linalg.compute_type_to_str(linalg.get_compute_type("float32")))
"""


def test_tf32_is_not_used_whatever_the_environment_says(cupy):
    del cupy
    result = subprocess.run(
        [sys.executable, "-c", COMPUTE_TYPE],
        env={**os.environ, "CUPY_TF32": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "COMPUTE_TYPE_DEFAULT\n", result.stderr


A_COOPERATIVE_LAUNCH = """
from cupy import RawKernel
from cupy.cuda import Function

print(type(RawKernel.kernel).__name__)
try:  # a function of no module: CUDA refuses it, but CuPy takes the words
    Function.__new__(Function)((1,), (1,), (), enable_cooperative_groups=True)
except Exception as error:
    print(type(error).__name__)
"""


def test_this_cupy_launches_cooperatively_by_a_word(cupy):
    del cupy
    result = subprocess.run(
        [sys.executable, "-c", A_COOPERATIVE_LAUNCH], capture_output=True, text=True, check=False
    )
    assert result.stdout.splitlines()[0] == "getset_descriptor", result.stderr
    assert "TypeError" not in result.stdout


def test_a_gpu_that_is_too_old(machine, monkeypatch):
    old = {"name": b"NVIDIA Pretended", "major": 6, "minor": 1}
    monkeypatch.setattr(machine.runtime, "getDeviceProperties", lambda device: old)
    stage, reason, remedy = failure()
    assert stage == "device"
    assert reason == (
        "the kernels need a GPU from sm_70 (Volta) on, this is NVIDIA Pretended, sm_61"
    )
    assert "--backend numba" in remedy


@pytest.mark.parametrize("kernel", ["descend", "head"])
def test_this_cupy_hands_over_a_structure_by_its_bytes(cupy, kernel):
    """What a launch makes of an array of NumPy that holds one element; there is no launch here."""
    array = cupy_array_at(cupy, 640)
    cut = cut_linear(784, 10, 17, tile=SMALL)
    if kernel == "descend":
        layer = Layer(None, array, None, cut, None, None, 3, None, 784, 10)
        argument = descent.as_argument([layer])
    else:
        layers = [HeadLayer(array, None, 3, None, 784, 10, "relu")]
        argument = Head("float32", 17, layers, []).as_argument()
    assert (argument.size, argument.flags.c_contiguous) == (1, True)
    packed = cupy.cuda.function.CNumpyArray(argument)
    words = (ctypes.c_uint64 * (packed.__sizeof__() // 8)).from_address(id(packed))
    assert argument.ctypes.data in list(words)  # CuPy 13 has no other way to look at it
    first = np.frombuffer(ctypes.string_at(argument.ctypes.data, argument.nbytes), "uint64")[:2]
    # x and dy of descend.cu, x and dx of head.cu
    assert first.tolist() == ([0, 640] if kernel == "descend" else [640, 0])


def cupy_array_at(cupy, address):
    """An array of CuPy that lies somewhere; nobody looks there."""
    memory = cupy.cuda.UnownedMemory(address, 8, None, 0)
    return cupy.ndarray((2,), "float32", cupy.cuda.MemoryPointer(memory, 0))
