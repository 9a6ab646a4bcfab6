"""Fixtures of the GPU tests."""

import pytest

from backends.cupy.launch import tiles
from benchmarks.gpu.bench_kernels.gpu import Gpu
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import Emulator
from tests.support.emulated_backend import EmulatedBackend


@pytest.fixture(scope="module")
def emulated() -> EmulatedBackend:
    """The CuPy backend on the CUDA emulator, with default settings."""
    return EmulatedBackend()


@pytest.fixture
def cupy():
    """The module CuPy, which can be imported without a GPU; skips the test if not installed."""
    return pytest.importorskip("cupy", reason="CuPy is not installed")


@pytest.fixture
def emulated_gpu() -> Gpu:
    """Emulated arrays, and launchers of fast and naive kernels, for float64."""
    return Gpu(EmulatedCupy(Emulator()), "float64")


@pytest.fixture
def tiled_gpu(dtype: str, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """Like `emulated_gpu`, for `dtype`; float32 matrix products of all sizes use large tiles."""
    monkeypatch.setattr(tiles, "MIN_LARGE_TILES", 1)
    return Gpu(EmulatedCupy(Emulator()), dtype)
