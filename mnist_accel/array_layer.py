"""The only door to the `backends` package.

`backends` is a top-level package of a generic name. All of `mnist_accel` imports it from here, so a
foreign package of that name is noticed in one place, with the path of the culprit.
"""

import backends

if getattr(backends, "PROJECT", None) != "mnist_accel":
    raise ImportError(
        f"another package called 'backends' hides the one mnist_accel needs: {backends.__file__}; "
        "remove it, or its folder from PYTHONPATH"
    )

from backends import (
    MOST_EXAMPLES,
    ROUNDS,
    ActivationKind,
    Array,
    Availability,
    Backend,
    BackendUnavailableError,
    CompiledEpoch,
    CompiledInference,
    DeviceInfo,
    LossKind,
    NotCompiledError,
    Order,
    OrderKind,
    PixelRangeError,
    Pooling,
    Program,
    Selection,
    Stage,
    Steps,
    Ties,
    TrainingProgram,
    UpdateRule,
    available_backends,
    check_pooling,
    get_backend,
    output_size,
    probe_cupy,
    probe_numba,
    register,
    select_backend,
    select_backends,
    unknown_name,
)

__all__ = [
    "MOST_EXAMPLES",
    "ROUNDS",
    "ActivationKind",
    "Array",
    "Availability",
    "Backend",
    "BackendUnavailableError",
    "CompiledEpoch",
    "CompiledInference",
    "DeviceInfo",
    "LossKind",
    "NotCompiledError",
    "Order",
    "OrderKind",
    "PixelRangeError",
    "Pooling",
    "Program",
    "Selection",
    "Stage",
    "Steps",
    "Ties",
    "TrainingProgram",
    "UpdateRule",
    "available_backends",
    "check_pooling",
    "get_backend",
    "output_size",
    "probe_cupy",
    "probe_numba",
    "register",
    "select_backend",
    "select_backends",
    "unknown_name",
]
