"""The NumPy backend: memory of the machine, number of BLAS threads, products in parts."""

import os

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from backends import get_backend
from backends.numpy.backend import NumpyBackend


def test_total_memory_uses_only_portable_sysconf_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """macOS, for example, has no SC_AVPHYS_PAGES."""
    known = {"SC_PHYS_PAGES": 1 << 20, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", known.__getitem__)
    assert NumpyBackend().device_info().memory_total_bytes == 4 << 30


@pytest.mark.parametrize("error", [ValueError("unrecognized configuration name"), OSError(22, "")])
def test_unknown_total_memory_is_none(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def sysconf(name: str) -> int:
        raise error

    monkeypatch.setattr(os, "sysconf", sysconf)
    assert NumpyBackend().device_info().memory_total_bytes is None


@pytest.mark.parametrize(
    ("name", "kinds", "bounded"),
    [
        ("numpy", {"linear"}, 3),
        ("numpy", {"linear", "conv2d"}, 3),
        ("numba", {"linear"}, 3),
        ("numba", {"linear", "conv2d"}, 1),
    ],
)
def test_blas_uses_the_chosen_threads_during_a_computation(
    name: str, kinds: set[str], bounded: int
) -> None:
    def threads() -> set[int]:
        pools = threadpool_info()
        return {p["num_threads"] for p in pools if "numpy" in p["filepath"]}

    before = threads()
    with get_backend(name, threads=3).computation(frozenset(kinds)):
        assert threads() == {bounded}
    assert threads() == before


def test_product_with_many_rows_is_that_of_each_row() -> None:
    """The product is computed in parts. Integers have no rounding errors."""
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (60_000, 5)).astype(np.float32)
    weight = rng.integers(-9, 9, (5, 3)).astype(np.float32)
    y = get_backend("numpy").linear(x, weight, None)
    assert y.dtype == np.float32
    assert np.array_equal(y, np.einsum("ni,io->no", x, weight))
