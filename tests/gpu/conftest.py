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
    """The module CuPy, which can be imported without a GPU; skips the test if not installed."""
    return pytest.importorskip("cupy", reason="CuPy is not installed")


@pytest.fixture
def setting() -> Setting:
    """Emulated arrays, and launchers of fast and naive kernels, for float64."""
    return Setting()


@pytest.fixture
def tiled_setting(dtype: str, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """Like `setting`, for `dtype`; float32 matrix products of all sizes use large tiles."""
    monkeypatch.setattr(tiles, "MIN_LARGE_TILES", 1)
    return Setting(dtype)
