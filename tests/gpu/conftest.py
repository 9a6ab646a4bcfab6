"""Fixtures of the GPU tests."""

import pytest

from backends.cupy.launch import tiles
from tests.support.emulated_backend import EmulatedBackend
from tests.support.naive_kernels import Setting


@pytest.fixture(scope="module")
def emulated() -> EmulatedBackend:
    """The CuPy backend on the CUDA emulator, with default settings."""
    return EmulatedBackend()


@pytest.fixture
def cupy():
    """The real CuPy, which can be imported without a GPU."""
    return pytest.importorskip("cupy", reason="CuPy is not installed")


@pytest.fixture
def setting() -> Setting:
    """Float64 arrays and launchers of fast and naive kernels."""
    return Setting()


@pytest.fixture
def tiled(dtype: str, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """Arrays and launchers for a dtype; products of float32 use large tiles."""
    monkeypatch.setattr(tiles, "MIN_LARGE_TILES", 1)
    return Setting(dtype)
