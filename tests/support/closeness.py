"""Comparisons of results: within rounding errors, and bit by bit."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mnist_accel.util.tolerance import relative_tolerance


def assert_close(
    got: Any, expected: Any, *, dtype: str, terms: int, steps: int = 1, label: str = ""
) -> None:
    """Fail if two arrays differ by more than the rounding errors of sums with `terms` terms.

    Differences of floats are relative to the largest magnitude in `expected`; NaN fails. Integers
    must be equal. None equals only None.
    """
    if expected is None or got is None:
        assert got is expected, label
        return
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, label
    if got.dtype.kind != "f":
        assert got.dtype == expected.dtype, label
        np.testing.assert_array_equal(got, expected, err_msg=label)
    elif got.size:
        error = float(np.abs(got.astype(np.float64) - expected).max())
        scale = float(np.abs(expected).max())
        tolerance = relative_tolerance(dtype, terms=terms, steps=steps) * scale
        assert error <= tolerance, f"{label}: {error:.2g} apart, at most {tolerance:.2g} expected"


def assert_same_bits(got: Sequence[Any], expected: Sequence[Any]) -> None:
    """Fail unless all arrays, or lists of numbers, are pairwise equal."""
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)
