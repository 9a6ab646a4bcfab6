"""The classic from-scratch MNIST networks, on NumPy, Numba and CuPy from one source.

>>> import mnist_accel as ma
>>> model = ma.create_model("two-layer", backend=ma.get_backend("numpy"), seed=0)
>>> model.describe()
'784 → linear 50 → relu → linear 10'
"""

import sys

from mnist_accel.util.launch import exit_on_ctrl_c, runs_a_command, search_current_folder_last

if runs_a_command():
    exit_on_ctrl_c()
if sys.argv[:1] == ["-m"]:
    search_current_folder_last()

from pathlib import Path

from mnist_accel.util.startup import end_quickly, explain_missing_packages, import_from

if runs_a_command():
    explain_missing_packages()
    end_quickly()
# `backends` is a generic name, so another top-level package of this name can hide ours.
if sys.argv[:1] == ["-m"]:
    import_from(Path(__file__).parents[1], "backends")

import backends

if getattr(backends, "PROJECT", None) != "mnist_accel":
    raise ImportError(
        f"another package called 'backends' hides the one mnist_accel needs: {backends.__file__}; "
        "remove its folder from PYTHONPATH, start Python in another folder, or rename it"
    )

from backends import (
    Availability,
    Backend,
    BackendUnavailableError,
    available_backends,
    get_backend,
)
from mnist_accel._version import __version__
from mnist_accel.checkpoints.checkpoint import (
    load_checkpoint,
    save_checkpoint,
    save_model,
)
from mnist_accel.checkpoints.legacy_weights import load_weights
from mnist_accel.data import load_dataset, load_mnist, read_digit_image
from mnist_accel.diagnostics.gradient_check import check_gradients
from mnist_accel.errors import (
    CheckpointError,
    DataError,
    DivergedError,
    MissingPackageError,
    MnistAccelError,
)
from mnist_accel.nn import Features, Network, Pixels, register
from mnist_accel.populations import Population, PopulationInterrupt, train_population
from mnist_accel.recipes.models import RECIPES, create_model
from mnist_accel.runs.model_files import load_model
from mnist_accel.training.callback import Callback
from mnist_accel.training.evaluation import Evaluation, evaluate, mean_loss
from mnist_accel.training.progress import History
from mnist_accel.training.trainer import Trainer

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
    "Features",
    "History",
    "MissingPackageError",
    "MnistAccelError",
    "Network",
    "Pixels",
    "Population",
    "PopulationInterrupt",
    "Trainer",
    "__version__",
    "available_backends",
    "check_gradients",
    "create_model",
    "evaluate",
    "get_backend",
    "load_checkpoint",
    "load_dataset",
    "load_mnist",
    "load_model",
    "load_weights",
    "mean_loss",
    "read_digit_image",
    "register",
    "save_checkpoint",
    "save_model",
    "train_population",
]


def __dir__() -> list[str]:
    return __all__
