"""The baselines of the benchmarks, and tasks for them."""

import numpy as np
import pytest

from benchmarks.contenders.base import Contender, TrainingTask
from benchmarks.contenders.jax_contender import Jax
from benchmarks.contenders.loops import Loops
from benchmarks.contenders.sklearn_contender import Sklearn
from benchmarks.contenders.torch_contenders import TorchCompile, TorchCudaGraph, TorchEager
from mnist_accel.data import Dataset
from mnist_accel.nn import UpdateRule, create_optimizer
from mnist_accel.recipes.models import RECIPES, create_model

BASELINES: dict[str, Contender] = {
    baseline.name: baseline
    for baseline in (TorchEager(), TorchCompile(), TorchCudaGraph(), Jax(), Sklearn(), Loops())
}


HIDDEN_SIZES = {"two-layer": (12,), "backprop": (10,), "three-layer": (8, 9)}


BATCH_SIZES = {"two-layer": 16, "backprop": 10, "three-layer": 16, "lenet": 4, "cnn": 4}


# The baselines that run everywhere, and a network that each can train quickly.
QUICK = {"torch-eager": "two-layer", "jax": "two-layer", "scikit-learn": "two-layer"}


def available(name: str) -> Contender:
    baseline = BASELINES[name]
    availability = baseline.availability()
    if not availability.ok:
        pytest.skip(f"{name} cannot run here: {availability.reason}; {availability.remedy}")
    return baseline


def make_task(
    mnist: Dataset,
    network: str,
    *,
    count: int = 64,
    batch_size: int | None = None,
    optimizer: UpdateRule | None = None,
) -> TrainingTask:
    recipe = RECIPES[network]
    return TrainingTask(
        model=create_model(network, backend="numpy", hidden_sizes=HIDDEN_SIZES.get(network)),
        optimizer=optimizer
        or create_optimizer(
            recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay or None
        ),
        batch_size=batch_size or BATCH_SIZES[network],
        images=mnist.x_train[:count].reshape(-1, 784),
        labels=mnist.t_train[:count].astype(np.int64),
        seed=1,
    )
