"""What the NumPy backend finds out about the machine, on systems that tell more or less of it."""

import os

import pytest

from backends.numpy_backend import NumpyBackend


def test_memory_is_asked_for_as_every_posix_system_knows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """macOS, for one, has no SC_AVPHYS_PAGES."""
    known = {"SC_PHYS_PAGES": 1 << 20, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", known.__getitem__)
    assert NumpyBackend().device_info().memory_total_bytes == 4 << 30


@pytest.mark.parametrize("error", [ValueError("unrecognized configuration name"), OSError(22, "")])
def test_memory_that_the_system_does_not_tell_is_none(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def sysconf(name: str) -> int:
        raise error

    monkeypatch.setattr(os, "sysconf", sysconf)
    assert NumpyBackend().device_info().memory_total_bytes is None
