"""Fixtures of the GPU tests."""

import pytest

from tests.support.emulated_backend import EmulatedBackend


@pytest.fixture(scope="module")
def emulated() -> EmulatedBackend:
    """The CuPy backend on the CUDA emulator, with default settings."""
    return EmulatedBackend()


@pytest.fixture
def cupy():
    """The real CuPy, which can be imported without a GPU."""
    return pytest.importorskip("cupy", reason="CuPy is not installed")
