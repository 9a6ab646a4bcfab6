"""The classic from-scratch MNIST networks, on NumPy, Numba and CuPy from one source.

    >>> import mnist_accel as ma
    >>> model = ma.create_model("two-layer", backend=ma.get_backend("numpy"), seed=0)
    >>> model.describe()
    '784 → linear 50 → relu → linear 10'

Everything in `__all__` is imported when it is first used, so that importing the package is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mnist_accel._version import __version__

if TYPE_CHECKING:
    from mnist_accel.array_layer import (
        Availability,
        Backend,
        BackendUnavailableError,
        available_backends,
        get_backend,
        register,
    )
    from mnist_accel.checkpoint import (
        load_checkpoint,
        load_model,
        save_checkpoint,
        save_model,
    )
    from mnist_accel.data import load_mnist
    from mnist_accel.errors import CheckpointError, DataError, DivergedError, MnistAccelError
    from mnist_accel.evaluation import Evaluation, evaluate
    from mnist_accel.gradient_check import check_gradients
    from mnist_accel.models import RECIPES, create_model
    from mnist_accel.nn import Network
    from mnist_accel.trainer import Trainer
    from mnist_accel.training_reports import Callback, History

_HOMES = {
    "Availability": "array_layer",
    "Backend": "array_layer",
    "BackendUnavailableError": "array_layer",
    "Callback": "training_reports",
    "CheckpointError": "errors",
    "DataError": "errors",
    "DivergedError": "errors",
    "Evaluation": "evaluation",
    "History": "training_reports",
    "MnistAccelError": "errors",
    "Network": "nn",
    "RECIPES": "models",
    "Trainer": "trainer",
    "available_backends": "array_layer",
    "check_gradients": "gradient_check",
    "create_model": "models",
    "evaluate": "evaluation",
    "get_backend": "array_layer",
    "load_checkpoint": "checkpoint",
    "load_mnist": "data",
    "load_model": "checkpoint",
    "register": "array_layer",
    "save_checkpoint": "checkpoint",
    "save_model": "checkpoint",
}

__all__ = [
    "RECIPES",
    "Availability",
    "Backend",
    "BackendUnavailableError",
    "Callback",
    "CheckpointError",
    "DataError",
    "DivergedError",
    "Evaluation",
    "History",
    "MnistAccelError",
    "Network",
    "Trainer",
    "__version__",
    "available_backends",
    "check_gradients",
    "create_model",
    "evaluate",
    "get_backend",
    "load_checkpoint",
    "load_mnist",
    "load_model",
    "register",
    "save_checkpoint",
    "save_model",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
