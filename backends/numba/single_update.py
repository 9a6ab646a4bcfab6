"""One step of an optimizer, computed by the kernel of compiled trainings."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.numba.kernels import updates
from backends.numba.layout import COMPILED
from backends.numba.linkage import update_kernel
from backends.numba.linked import eps_is_too_small, settings_of
from backends.operations.common import has_kernel_dtype
from backends.operations.updates import UpdateRule, state_arrays

Array = NDArray[Any]


def has_update_kernel(
    rule: UpdateRule, weights: Array, grads: Array, state: Mapping[str, Array]
) -> bool:
    """Return whether `update` supports an optimizer and its arrays."""
    return (
        COMPILED.has_rule(rule)
        and has_kernel_dtype(weights)
        and not eps_is_too_small(rule, weights.dtype)
        and all(
            array.ndim == 1 and array.flags.carray for array in (weights, grads, *state.values())
        )
    )


def update(
    rule: UpdateRule, weights: Array, grads: Array, state: Mapping[str, Array], lr: float, step: int
) -> None:
    """Change `weights` and `state` in place; the arguments are those of `Updates.update`."""
    kernel, settings = _kernel(rule, weights.dtype)
    arrays = weights, *state_arrays(rule, state)
    updates.update(kernel, settings, float(lr), int(step), arrays, grads)


@lru_cache
def _kernel(rule: UpdateRule, dtype: np.dtype[Any]) -> tuple[int, tuple[Any, ...]]:
    """Return the address of the kernel of an optimizer, and its settings."""
    settings = settings_of(rule, is_linear=False)
    return update_kernel(rule.kind, settings, dtype).address(), tuple(settings)
