"""The array layer of `mnist_accel`: one interface, and a backend for each array library.

It does not depend on networks, files or MNIST. `get_backend` returns a backend, which callers pass
on as an argument. See `backends.base` for the interface and for how to add a backend.
"""

from backends.availability import Availability, BackendUnavailableError, unset
from backends.base import Backend, DeviceInfo
from backends.checks import (
    as_boolean,
    as_integer,
    as_integers,
    as_number,
    check_boolean,
    check_callable,
    check_fraction,
    check_integer,
    check_name,
    check_non_negative,
    check_positive,
    require_type,
)
from backends.compilation import compiled_kernels, needed_kernels
from backends.cupy.probe import probe as probe_cupy
from backends.names import (
    NO_ALIASES,
    Aliases,
    Table,
    closest_name,
    flags_in_messages,
    option,
    resolve_name,
    shown,
    spelling,
)
from backends.numba.probe import probe as probe_numba
from backends.operations.activations import ACTIVATIONS, ActivationFormula
from backends.operations.common import Array, Ties, check_max_pooling, output_sizes
from backends.operations.losses import LOSSES, LossFormula
from backends.operations.updates import (
    OPTIMIZER_ALIASES,
    OPTIMIZERS,
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    RMSProp,
    UpdateRule,
    create_optimizer,
)
from backends.order import MAX_EXAMPLES, ROUNDS, Order, OrderKind
from backends.program import (
    ChunkResults,
    CompiledEpoch,
    CompiledInference,
    InputRangeError,
    MemberSteps,
    NotCompiledError,
    Pooling,
    Program,
    Shape,
    Stage,
    Steps,
    TrainingProgram,
)
from backends.registry import (
    Selection,
    as_backend,
    available_backends,
    backend_availability,
    backend_name,
    backend_names,
    device_name,
    get_backend,
    register,
    select_backend,
    select_backends,
)

# `mnist_accel` checks this name to detect another top-level package called `backends`.
PROJECT = "mnist_accel"

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "MAX_EXAMPLES",
    "NO_ALIASES",
    "OPTIMIZERS",
    "OPTIMIZER_ALIASES",
    "PROJECT",
    "ROUNDS",
    "SGD",
    "ActivationFormula",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Aliases",
    "Array",
    "Availability",
    "Backend",
    "BackendUnavailableError",
    "ChunkResults",
    "CompiledEpoch",
    "CompiledInference",
    "DeviceInfo",
    "InputRangeError",
    "LossFormula",
    "MemberSteps",
    "NotCompiledError",
    "Order",
    "OrderKind",
    "Pooling",
    "Program",
    "RMSProp",
    "Selection",
    "Shape",
    "Stage",
    "Steps",
    "Table",
    "Ties",
    "TrainingProgram",
    "UpdateRule",
    "as_backend",
    "as_boolean",
    "as_integer",
    "as_integers",
    "as_number",
    "available_backends",
    "backend_availability",
    "backend_name",
    "backend_names",
    "check_boolean",
    "check_callable",
    "check_fraction",
    "check_integer",
    "check_max_pooling",
    "check_name",
    "check_non_negative",
    "check_positive",
    "closest_name",
    "compiled_kernels",
    "create_optimizer",
    "device_name",
    "flags_in_messages",
    "get_backend",
    "needed_kernels",
    "option",
    "output_sizes",
    "probe_cupy",
    "probe_numba",
    "register",
    "require_type",
    "resolve_name",
    "select_backend",
    "select_backends",
    "shown",
    "spelling",
    "unset",
]
