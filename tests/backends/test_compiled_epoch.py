"""Compiled training computes the same as eager training."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from backends import Backend, get_backend
from mnist_accel import nn
from mnist_accel.data import Dataset
from mnist_accel.errors import DivergedError
from mnist_accel.nn import layers, losses
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.network import Network
from mnist_accel.recipes.models import RECIPES, create_model
from mnist_accel.training.evaluation import evaluate
from mnist_accel.training.trainer import Trainer
from mnist_accel.util.tolerance import relative_difference
from tests.support.compiled_training import (
    NETWORKS,
    OPTIMIZERS,
    assert_compiled_matches_eager,
    make_network,
)

L = layers
pytestmark = pytest.mark.usefixtures("wakes_threads")


@pytest.fixture(scope="module")
def numba() -> Backend:
    return get_backend("numba")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe(numba: Backend, mnist: Dataset, name: str, dtype: str) -> None:
    recipe = RECIPES[name]
    sizes = {"cnn": 1, "lenet": 33, "fast99": 33}
    batch_size = sizes.get(name, 70)
    models = tuple(create_model(name, backend=numba, seed=3, dtype=dtype) for _ in range(2))
    count = batch_size * 4 - 1  # the last batch of an epoch is smaller
    optimizer = nn.create_optimizer(recipe.optimizer, lr=recipe.lr)
    if isinstance(optimizer, nn.Adam) and dtype == "float32":
        # With the default eps of 1e-8, rounding of a gradient near 0 becomes a full step.
        optimizer = replace(optimizer, eps=1e-4)
    assert_compiled_matches_eager(
        models,  # type: ignore[arg-type]
        (mnist.x_train[:count], mnist.t_train[:count]),
        optimizer,
        batch_size=batch_size,
        sampling=recipe.sampling,
    )


def test_sequential_batches(numba: Backend, mnist: Dataset) -> None:
    models = make_network("wide", numba), make_network("wide", numba)
    data = mnist.x_train[:101], mnist.t_train[:101]
    assert_compiled_matches_eager(
        models, data, nn.SGD(lr=0.02), batch_size=20, sampling="sequential"
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_other_networks(numba: Backend, mnist: Dataset, name: str) -> None:
    models = make_network(name, numba), make_network(name, numba)
    data = mnist.x_train[:101], mnist.t_train[:101]
    assert_compiled_matches_eager(models, data, nn.SGD(lr=0.02), batch_size=40)


@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(numba: Backend, mnist: Dataset, name: str, *, sparse: bool) -> None:
    models = make_network("two activations", numba), make_network("two activations", numba)
    images = mnist.x_train[:101] if sparse else 255 - mnist.x_train[:101]
    assert_compiled_matches_eager(
        models, (images, mnist.t_train[:101]), OPTIMIZERS[name], batch_size=64
    )


@pytest.mark.slow
def test_compiled_and_eager_training_stay_together_for_an_epoch(
    numba: Backend, mnist: Dataset
) -> None:
    """Train `backprop` in float64 for 6000 steps with a tenth of its learning rate.

    With the rate of 3 the training is chaotic: rounding alone changes the accuracy by a percent.
    With 0.3, the weights differ by less than 1e-13.
    """
    weights, accuracies = [], []
    for compiled in (True, False):
        model = create_model("backprop", backend=numba, dtype="float64")
        trainer = Trainer(model, nn.SGD(lr=0.3), batch_size=10, compiled=compiled)
        trainer.fit(mnist.x_train, mnist.t_train, epochs=1)
        weights.append(model.state_dict())
        accuracies.append(evaluate(model, mnist.x_test, mnist.t_test).accuracy)
    for key, weight in weights[0].items():
        assert relative_difference(weight, weights[1][key]) < 1e-11
    assert accuracies[0] == accuracies[1] > 0.5


@pytest.mark.slow
def test_compiled_and_eager_training_in_float32_reach_the_same_accuracy(
    numba: Backend, mnist: Dataset
) -> None:
    """Train `backprop` for an epoch; at its end the cosine schedule damps the chaos of rounding."""
    recipe = RECIPES["backprop"]
    optimizer = nn.SGD(lr=recipe.lr, weight_decay=recipe.weight_decay)
    accuracies: dict[bool, list[float]] = {True: [], False: []}
    for seed, (compiled, got) in itertools.product(range(3), accuracies.items()):
        model = create_model("backprop", backend=numba, seed=seed)
        settings = {"batch_size": 10, "seed": seed, "schedule": "cosine", "compiled": compiled}
        Trainer(model, optimizer, **settings).fit(mnist.x_train, mnist.t_train, epochs=1)
        got.append(evaluate(model, mnist.x_test, mnist.t_test).accuracy)
    assert min(accuracies[True]) > 0.88
    assert abs(np.mean(accuracies[True]) - np.mean(accuracies[False])) < 0.002


@pytest.mark.parametrize("loss", [losses.BinaryCrossEntropy(), losses.Quadratic()])
def test_every_loss(numba: Backend, mnist: Dataset, loss: losses.Loss) -> None:
    row = [L.Linear(12), L.ReLU(), L.Linear(10)]
    models = tuple(
        Network(row, loss, input=Pixels((784,)), backend=numba, dtype="float64") for _ in range(2)
    )
    data = mnist.x_train[:90], mnist.t_train[:90]
    assert_compiled_matches_eager(models, data, nn.SGD(lr=0.05), batch_size=32)  # type: ignore[arg-type]


@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_float_images(numba: Backend, mnist: Dataset, dtype: str, *, sparse: bool) -> None:
    images = mnist.x_train[:80] / np.float64(255)
    images = images if sparse else 1 - images
    models = make_network("wide", numba, dtype), make_network("wide", numba, dtype)
    assert_compiled_matches_eager(models, (images, mnist.t_train[:80]), nn.SGD(), batch_size=64)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([L.Conv2d(2, 3, stride=2), L.Flatten(), L.Linear(10)], "conv2d with stride=2"),
        ([L.Flatten(), L.Dropout(0.5), L.Linear(10)], "masks of dropout"),
    ],
)
def test_networks_without_compiled_form_train_eagerly_and_give_the_reason(
    numba: Backend, mnist: Dataset, row: list[layers.Layer], reason: str
) -> None:
    model = Network(row, losses.SoftmaxCrossEntropy(), input=Pixels((1, 28, 28)), backend=numba)
    trainer = Trainer(model, "sgd")
    assert trainer.compiled is None
    assert reason in trainer.not_compiled
    assert len(trainer.fit(mnist.x_train[:64], mnist.t_train[:64], epochs=1).losses) == 1


def test_backends_without_compiled_epochs_give_the_reason() -> None:
    trainer = Trainer(create_model("two-layer", backend="numpy"))
    assert trainer.compiled is None
    assert "numpy has no compiled epochs" in trainer.not_compiled


def test_divergence_is_detected(numba: Backend, mnist: Dataset) -> None:
    model = create_model("lenet", backend=numba)
    before = model.state_dict()
    trainer = Trainer(model, "sgd", lr=1e6, batch_size=32)
    assert trainer.compiled is not None
    with pytest.raises(DivergedError, match="first value that is not finite is in"):
        trainer.fit(mnist.x_train[:640], mnist.t_train[:640], epochs=3)
    assert all(np.isfinite(value).all() for value in model.state_dict().values())
    assert before.keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", ["two-layer", "lenet"])
def test_a_training_continues_after_it_diverged(mnist: Dataset, name: str) -> None:
    """The batches after it are smaller, so buffers with NaN are used again."""
    numba = get_backend("numba", threads=2)
    images, labels = mnist.x_train[:40], mnist.t_train[:40]
    weights = []
    for diverges in (True, False):
        trainer = Trainer(create_model(name, backend=numba), "adam", batch_size=20)
        flat = trainer.model.parameters.flat
        if diverges:
            before, flat[-1] = flat.copy(), np.nan  # a bias, so all losses are NaN
            with pytest.raises(DivergedError):
                trainer.fit(images, labels, epochs=1)
            flat[:] = before
        for _ in range(2):
            trainer.fit(images[:13], labels[:13], epochs=1)
            trainer.fit(images, labels, epochs=1)
        weights.append(flat.copy())
    assert np.array_equal(*weights)
