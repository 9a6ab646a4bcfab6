"""CuPy behaves as the CuPy backend requires. Most tests need no GPU."""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backends import get_backend
from backends.cupy.backend import CupyBackend
from backends.cupy.launch.fused_classifier import ClassifierLayer
from backends.cupy.launch.tiles import SMALL
from backends.cupy.launch.wgrad_update import (
    MAX_LAYERS,
    WgradLayer,
    layer_structs,
    split_linear,
)
from backends.cupy.loader import source
from backends.cupy.signature import parameters
from mnist_accel.nn.parameters import ParameterVector

ROOT = Path(__file__).parents[2]

on_the_gpu = pytest.mark.parametrize("backend", ["cupy"], indirect=True)


def test_cupy_has_every_array_function_that_the_project_calls(cupy):
    xp = CupyBackend().xp
    files = [*ROOT.glob("backends/operations/*.py"), *ROOT.glob("mnist_accel/**/*.py")]
    used = {name for file in files for name in re.findall(r"\bxp\.(\w+)", file.read_text())}
    assert {"astype", "isfinite", "permute_dims", "reshape", "take"} <= used
    assert [name for name in used if not hasattr(xp, name)] == []


def test_parameters_are_views_of_the_flat_vector(cupy, monkeypatch):
    """CuPy needs no GPU driver to make views of memory that it did not allocate."""

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


@pytest.mark.gpu
@on_the_gpu
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64", "bool"])
def test_arrays_survive_a_round_trip_to_the_gpu(backend, dtype):
    host = np.arange(24).reshape(2, 3, 4).astype(dtype)
    back = backend.to_numpy(backend.asarray(host))
    assert type(back) is np.ndarray
    assert back.dtype == host.dtype
    np.testing.assert_array_equal(back, host)
    assert backend.asarray(host, dtype="float32").dtype == np.float32


@pytest.mark.gpu
@on_the_gpu
def test_transfers_copy_and_return_c_order(backend):
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
def test_gpu_of_this_machine_is_described(backend):
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


def test_backend_disables_tf32_despite_the_environment(cupy):
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


COOPERATIVE_LAUNCH = """
from cupy import RawKernel
from cupy.cuda import Function

print(type(RawKernel.kernel).__name__)
try:  # CUDA refuses a function without a module, but CuPy accepts the keyword
    Function.__new__(Function)((1,), (1,), (), enable_cooperative_groups=True)
except Exception as error:
    print(type(error).__name__)
"""


def test_cupy_accepts_cooperative_launches_by_keyword(cupy):
    del cupy
    result = subprocess.run(
        [sys.executable, "-c", COOPERATIVE_LAUNCH], capture_output=True, text=True, check=False
    )
    assert result.stdout.splitlines()[0] == "getset_descriptor", result.stderr
    assert "TypeError" not in result.stdout


@pytest.mark.parametrize("kernel", ["wgrad_update", "fused_classifier"])
def test_cupy_passes_structures_by_value(cupy, kernel):
    """This test packs a structured NumPy array as a launch does, but needs no GPU."""
    array = cupy_array_at(cupy, 640)
    options = {"REAL": "float", "PIXEL": "uint8", "MAX_LAYERS": MAX_LAYERS}
    struct = parameters(source(kernel), kernel, options)["layers"]
    if kernel == "wgrad_update":
        split = split_linear(784, 10, 17, tile=SMALL, narrow=10)
        layer = WgradLayer(None, array, None, split, None, None, 3, -1, 784, 10)
        argument = struct.convert({"layers": layer_structs([layer]), "count": 1})
    else:
        layers = [ClassifierLayer(array, None, 3, -1, 784, 10, "relu")]
        argument = struct.convert(
            {"linear": layers, "convolutions": [], "linear_count": 1, "convolution_count": 0}
        )
    assert (argument.size, argument.flags.c_contiguous) == (1, True)
    packed = cupy.cuda.function.CNumpyArray(argument)
    words = (ctypes.c_uint64 * (packed.__sizeof__() // 8)).from_address(id(packed))
    assert argument.ctypes.data in list(words)  # CuPy 13 offers no other access
    first = np.frombuffer(ctypes.string_at(argument.ctypes.data, argument.nbytes), "uint64")[:2]
    # The first members: x and dy of a WgradLayer, x and dx of a ClassifierLayer.
    assert first.tolist() == ([0, 640] if kernel == "wgrad_update" else [640, 0])


def cupy_array_at(cupy, address):
    """Return a CuPy array at an address that is never accessed."""
    memory = cupy.cuda.UnownedMemory(address, 8, None, 0)
    return cupy.ndarray((2,), "float32", cupy.cuda.MemoryPointer(memory, 0))
