"""Environment variables of the Numba backend are checked before they are used."""

import pytest

pytest.importorskip("numba")

from backends.numba.probe import availability


@pytest.mark.parametrize("value", ["abc", "0", "-3", "1.5", "", " ", "999999", "9" * 5000, "²"])
def test_invalid_number_of_threads_makes_numba_unavailable(monkeypatch, value):
    monkeypatch.setenv("NUMBA_NUM_THREADS", value)
    found = availability()
    assert not found.ok
    assert found.reason == f"the environment variable NUMBA_NUM_THREADS is {value[:20]!r}"
    assert found.remedy == "set it to a number from 1 to 1024, or remove it"


@pytest.mark.parametrize("value", ["1", "1024"])
def test_valid_number_of_threads_is_accepted(monkeypatch, value):
    monkeypatch.setenv("NUMBA_NUM_THREADS", value)
    assert availability().ok


@pytest.mark.parametrize("value", ["8", "1024", "", "wide"])
def test_invalid_width_of_vectors_makes_numba_unavailable(monkeypatch, value):
    monkeypatch.setenv("MNIST_ACCEL_VECTOR_BITS", value)
    found = availability()
    assert not found.ok
    assert found.reason == f"the environment variable MNIST_ACCEL_VECTOR_BITS is {value!r}"
    assert found.remedy == "set it to 128, 256 or 512, or remove it"
