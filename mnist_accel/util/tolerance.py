"""The largest accepted difference between two correct computations of the same value.

Backends add the same numbers in different orders. If rounding errors are independent, the error of
a sum of K terms grows like √K times the precision of the dtype (Higham 2002, section 4.2). Errors
also accumulate from one training step to the next. The tests, the benchmarks and `compare` use
these functions.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# With this value, no tensor of any recipe differed between numpy and numba by more than 3% of the
# tolerance.
SAFETY = 1.0


def relative_tolerance(dtype: str, *, terms: int, steps: int = 1) -> float:
    """Return the largest relative difference that rounding explains: SAFETY · eps · √terms · steps.

    Args:
        dtype: name of the dtype of both computations.
        terms: number of terms of the longest sum.
        steps: number of training steps up to and including the compared one.
    """
    return SAFETY * float(np.finfo(dtype).eps) * math.sqrt(terms) * steps


def relative_difference(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return ‖got − expected‖ / ‖expected‖ in float64; 0 if both norms are 0."""
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    difference, norm = float(np.linalg.norm(got - expected)), float(np.linalg.norm(expected))
    if difference == 0:
        return 0.0
    return difference / norm if norm else math.inf
