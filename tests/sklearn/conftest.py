"""Small data sets for the tests of the estimators."""

from typing import Any

import numpy as np
import pytest

Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


@pytest.fixture(scope="session")
def blobs() -> Data:
    """Return 90 points with 4 features in 3 overlapping classes."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    return rng.normal(size=(90, 4)) + np.eye(3, 4)[y] * 1.5, y
