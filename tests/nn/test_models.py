"""The recipes match their sources: networks, training settings, initial weights."""

from itertools import pairwise

import numpy as np
import pytest

import mnist_accel as ma
from mnist_accel.nn import (
    AvgPool2d,
    BinaryCrossEntropy,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Network,
    Quadratic,
    SoftmaxCrossEntropy,
)
from mnist_accel.recipes.models import RECIPES
from mnist_accel.recipes.settings import resolve

NETWORKS = {
    "fcnn": "784 → linear 128 → relu → linear 64 → relu → linear 10",
    "two-layer": "784 → linear 50 → relu → linear 10",
    "backprop": "784 → linear 30 → sigmoid → linear 10",
    "cnn": "1×28×28 → conv2d 8×26×26 → max_pool2d 8×13×13 → flatten 1352 → linear 10",
    "three-layer": "784 → linear 50 → sigmoid → linear 100 → sigmoid → linear 10",
    "lenet": (
        "1×28×28 → conv2d 6×28×28 → relu → max_pool2d 6×14×14 → conv2d 16×10×10 → relu → "
        "max_pool2d 16×5×5 → flatten 400 → linear 120 → relu → linear 84 → relu → linear 10"
    ),
    "fast99": (
        "1×28×28 → conv2d 8×24×24 → relu → max_pool2d 8×12×12 → conv2d 32×8×8 → relu → "
        "max_pool2d 32×4×4 → flatten 512 → linear 128 → relu → linear 10"
    ),
}
LOSSES = {"fcnn": BinaryCrossEntropy, "backprop": Quadratic}  # softmax cross-entropy elsewhere
# Training settings of each source. Three recipes have none from a source.
TRAININGS = {
    "fcnn": {"optimizer": "sgd", "lr": 0.0075, "sampling": "full", "iterations": 1000},
    "two-layer": {
        "optimizer": "sgd", "lr": 0.05, "sampling": "replacement", "batch_size": 512,
        "iterations": 10_000,
    },
    "backprop": {"optimizer": "sgd", "lr": 3.0, "sampling": "shuffle", "batch_size": 10},
    "cnn": {
        "optimizer": "sgd", "lr": 0.005, "sampling": "shuffle", "batch_size": 1, "epochs": 5,
        "limit_train": 1000, "limit_test": 1000, "log_every": 100,
    },
}  # fmt: skip
# Variances of the recipes whose initializer depends on the activation: 2 / inputs (He) for ReLU,
# 2 / (inputs + outputs) (Glorot) for sigmoid and tanh.
SPREADS = {
    ("fcnn", None): {"W1": 2 / 784, "W2": 2 / 128, "W3": 2 / 64},
    ("three-layer", None): {"W1": 2 / 834, "W2": 2 / 150, "W3": 2 / 110},
    ("lenet", None): {"W1": 2 / 25, "W2": 2 / 150, "W3": 2 / 400, "W4": 2 / 120, "W5": 2 / 84},
    ("fast99", None): {"W1": 2 / 25, "W2": 2 / 200, "W3": 2 / 512, "W4": 2 / 128},
    ("lenet", "tanh"): {"W1": 2 / (25 + 150), "W2": 2 / (150 + 400), "W3": 2 / 520},
    ("three-layer", "relu"): {"W1": 2 / 784, "W2": 2 / 50, "W3": 2 / 100},
}


@pytest.mark.parametrize("name", RECIPES)
def test_network_and_loss(name):
    model = ma.create_model(name, backend="numpy")
    assert model.describe() == NETWORKS[name]
    assert model.loss == LOSSES.get(name, SoftmaxCrossEntropy)()


def test_description_shows_every_width_and_shape_change():
    model = Network(
        [Conv2d(1, 3, padding=1), Dropout(0.5), AvgPool2d(1), Flatten(), Linear(784), Linear(784)],
        SoftmaxCrossEntropy(),
        input=ma.Pixels((1, 28, 28)),
        backend=ma.get_backend("numpy"),
    )
    assert model.describe() == (
        "1×28×28 → conv2d 1×28×28 → dropout → avg_pool2d → flatten 784 → linear 784 → linear 784"
    )


@pytest.mark.parametrize("name", TRAININGS)
def test_recipe_has_the_training_settings_of_the_original_program(name):
    settings = resolve({"model": name})
    assert {key: getattr(settings, key) for key in TRAININGS[name]} == TRAININGS[name]
    assert settings.schedule == "constant"
    assert settings.dtype == "float32"
    assert settings.seed == 0


def test_every_recipe_has_either_epochs_or_iterations():
    for recipe in RECIPES.values():
        assert bool(recipe.epochs) != bool(recipe.iterations)


@pytest.mark.parametrize(
    ("name", "ties"), [("cnn", "all"), ("lenet", "first"), ("fast99", "first")]
)
def test_ties_of_the_pooling(name, ties):
    pools = [
        layer
        for layer in ma.create_model(name, backend="numpy").layers
        if isinstance(layer, MaxPool2d)
    ]
    assert pools
    assert all(pool.ties == ties for pool in pools)


@pytest.mark.parametrize(("name", "activation"), SPREADS)
def test_initial_weights_depend_on_the_activation(name, activation):
    expected = SPREADS[name, activation]
    state = ma.create_model(name, backend="numpy", activation=activation).state_dict()
    for key, variance in expected.items():
        spread = 1 / np.sqrt(2 * state[key].size)  # standard error of a standard deviation
        assert abs(state[key].std() / np.sqrt(variance) - 1) <= 4 * spread, key
        assert abs(state[key].mean()) <= 5 * np.sqrt(variance / state[key].size), key
    assert all((value == 0).all() for key, value in state.items() if key.startswith("b"))


def test_backprop_draws_in_the_order_of_its_source():
    """All biases before all weights, which the source stores as (out, in)."""
    rng = np.random.default_rng(7)
    expected = {"b1": rng.standard_normal(30), "b2": rng.standard_normal(10)}
    expected |= {"W1": rng.standard_normal((30, 784)).T, "W2": rng.standard_normal((10, 30)).T}
    state = ma.create_model("backprop", backend="numpy", seed=7, dtype="float64").state_dict()
    assert all(np.array_equal(state[key], expected[key]) for key in expected)


@pytest.mark.parametrize("sizes", [(15,), (100,), (20, 30), ()])
def test_hidden_sizes_of_dense_recipes(sizes):
    for name in ("fcnn", "two-layer", "backprop", "three-layer"):
        state = ma.create_model(name, backend="numpy", hidden_sizes=sizes).state_dict()
        widths = (784, *sizes, 10)
        shapes = [state[f"W{number}"].shape for number in range(1, len(widths))]
        assert shapes == list(pairwise(widths))
        assert len(state) == 2 * len(shapes)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
def test_hidden_activation_can_be_chosen(activation):
    for name in set(RECIPES) - {"cnn"}:
        model = ma.create_model(name, backend="numpy", activation=activation)
        hidden = [layer.kind for layer in model.layers if layer.kind in ("relu", "sigmoid", "tanh")]
        assert hidden
        assert set(hidden) == {activation}
