"""Fixtures of the tests of backends."""

import pytest


@pytest.fixture
def wakes_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled training uses all its threads also in short chunks and small batches."""
    monkeypatch.setattr("backends.numba.epoch.MIN_MULTIPLICATIONS_OF_CHUNK", 0)
    monkeypatch.setattr("backends.numba.epoch.MIN_IMAGES_PER_THREAD", 0)
