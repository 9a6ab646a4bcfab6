"""Fixtures of the GPU tests."""

import pytest

from tests.support.emulated_backend import EmulatedBackend


@pytest.fixture(scope="module")
def emulated() -> EmulatedBackend:
    """The CuPy backend on the CUDA emulator, with default settings."""
    return EmulatedBackend()
