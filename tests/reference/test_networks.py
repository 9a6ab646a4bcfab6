"""Networks of the reference: shapes, layers, and gradients of special cases."""

import ast
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import reference as ref

Array = ref.Array


def test_imports_only_numpy_and_the_standard_library() -> None:
    imported = set()
    for file in Path(ref.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                imported.add(str(node.module).split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"numpy", "reference"}


EXPECTED_SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "fcnn": {
        "W1": (784, 128), "b1": (128,), "W2": (128, 64), "b2": (64,), "W3": (64, 10), "b3": (10,),
    },
    "two-layer": {"W1": (784, 50), "b1": (50,), "W2": (50, 10), "b2": (10,)},
    "backprop": {"W1": (784, 30), "b1": (30,), "W2": (30, 10), "b2": (10,)},
    "cnn": {"W1": (8, 1, 3, 3), "W2": (1352, 10), "b2": (10,)},
    "three-layer": {
        "W1": (784, 50), "b1": (50,), "W2": (50, 100), "b2": (100,), "W3": (100, 10), "b3": (10,),
    },
    "lenet": {
        "W1": (6, 1, 5, 5), "b1": (6,), "W2": (16, 6, 5, 5), "b2": (16,),
        "W3": (400, 120), "b3": (120,), "W4": (120, 84), "b4": (84,), "W5": (84, 10), "b5": (10,),
    },
    "fast99": {
        "W1": (8, 1, 5, 5), "b1": (8,), "W2": (32, 8, 5, 5), "b2": (32,),
        "W3": (512, 128), "b3": (128,), "W4": (128, 10), "b4": (10,),
    },
}  # fmt: skip


def test_shapes_of_initial_weights() -> None:
    rng = np.random.default_rng(7)
    shapes = {
        name: {key: w.shape for key, w in ref.initial_weights(name, rng).items()}
        for name in ref.RECIPES
    }
    assert shapes == EXPECTED_SHAPES
    backprop = ref.initial_weights("backprop", rng, hidden_sizes=(100,))
    assert [w.shape for w in backprop.values()] == [(784, 100), (100,), (100, 10), (10,)]


@pytest.mark.parametrize(
    ("recipe", "activation"),
    [
        ("fcnn", lambda z: np.maximum(z, 0)),
        ("two-layer", lambda z: np.maximum(z, 0)),
        ("backprop", lambda z: 1 / (1 + np.exp(-z))),
        ("three-layer", lambda z: 1 / (1 + np.exp(-z))),
    ],
)
def test_logits_of_dense_recipes(recipe: str, activation: Callable[[Array], Array]) -> None:
    rng = np.random.default_rng(8)
    weights = ref.initial_weights(recipe, rng)
    image = rng.integers(0, 256, (28, 28), dtype=np.uint8)
    x = image.ravel() / 255
    for n in range(1, len(weights) // 2 + 1):
        z = x @ weights[f"W{n}"] + weights[f"b{n}"]
        x = activation(z)
    assert_allclose(ref.forward(recipe, weights, image)[-1], z, rtol=1e-10)


def test_layers_of_cnn() -> None:
    rng = np.random.default_rng(9)
    image = rng.integers(0, 256, (28, 28), dtype=np.uint8)
    values = ref.forward("cnn", ref.initial_weights("cnn", rng), image)
    shapes = [value.shape for value in values]
    assert shapes == [(1, 28, 28), (8, 26, 26), (8, 13, 13), (1352,), (10,)]


@pytest.mark.parametrize(
    ("recipe", "shapes", "activations"),
    [
        (
            "lenet",
            [
                *[(1, 28, 28), (6, 28, 28), (6, 28, 28), (6, 14, 14)],
                *[(16, 10, 10), (16, 10, 10), (16, 5, 5)],
                *[(400,), (120,), (120,), (84,), (84,), (10,)],
            ],
            (2, 5, 9, 11),
        ),
        (
            "fast99",
            [
                *[(1, 28, 28), (8, 24, 24), (8, 24, 24), (8, 12, 12)],
                *[(32, 8, 8), (32, 8, 8), (32, 4, 4)],
                *[(512,), (128,), (128,), (10,)],
            ],
            (2, 5, 9),
        ),
    ],
)
def test_layers_of_two_convolutions(
    recipe: str, shapes: list[tuple[int, ...]], activations: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(10)
    image = rng.integers(0, 256, (28, 28), dtype=np.uint8)
    values = ref.forward(recipe, ref.initial_weights(recipe, rng), image)
    assert [value.shape for value in values] == shapes
    for n in activations:
        assert_array_equal(values[n], np.maximum(values[n - 1], 0))


def test_pixel_shift() -> None:
    image = np.zeros(784, dtype=np.uint8)
    image[1] = 255
    for name in ref.RECIPES:
        x = ref.forward(name, ref.initial_weights(name, np.random.default_rng(9)), image)[0]
        assert_array_equal(x[0, 0, :3], [-0.5, 0.5, -0.5] if name == "cnn" else [0, 1, 0])


def with_ties(name: str, ties: str) -> ref.Recipe:
    """Return the recipe with this rule in all its max-pools."""
    layers = ref.RECIPES[name].convolutional
    return replace(
        ref.RECIPES[name],
        convolutional=tuple(
            ref.MaxPool2d(ties) if isinstance(layer, ref.MaxPool2d) else layer for layer in layers
        ),
    )


@pytest.mark.parametrize(
    ("recipe", "ties", "other", "key"),
    [
        ("cnn", "all", "first", "W1"),
        ("lenet", "first", "all", "b1"),
        ("fast99", "first", "all", "b1"),
    ],
)
def test_tie_rule_decides_the_gradient_on_blank_images(
    recipe: str, ties: str, other: str, key: str
) -> None:
    weights = ref.initial_weights(recipe, np.random.default_rng(11))
    blank = np.zeros((28, 28), dtype=np.uint8)
    _, gradients = ref.loss_and_gradients(recipe, weights, blank, 4)
    _, same = ref.loss_and_gradients(with_ties(recipe, ties), weights, blank, 4)
    _, different = ref.loss_and_gradients(with_ties(recipe, other), weights, blank, 4)
    assert_array_equal(gradients[key], same[key])
    assert not np.allclose(gradients[key], different[key])
    if recipe == "cnn":  # all four positions of every patch are equal
        assert_allclose(gradients[key], 4 * different[key])


@pytest.mark.parametrize(
    ("recipe", "loss"),
    [
        ("fcnn", 10 * math.log(2)),
        ("two-layer", math.log(10)),
        ("backprop", 0.5 * 10 * 0.25),
        ("cnn", math.log(10)),
        ("three-layer", math.log(10)),
        ("lenet", math.log(10)),
        ("fast99", math.log(10)),
    ],
)
def test_loss_and_output_bias_gradient_at_zero_weights(recipe: str, loss: float) -> None:
    weights = {key: np.zeros(shape) for key, shape in EXPECTED_SHAPES[recipe].items()}
    images = np.zeros((2, 28, 28), dtype=np.uint8)
    found, gradients = ref.batch_loss_and_gradients(recipe, weights, images, [0, 1])
    assert_allclose(found, loss)
    output = 0.1 if "softmax" in ref.RECIPES[recipe].loss else 0.5
    scale = 0.25 if recipe == "backprop" else 1.0
    last_bias = list(weights)[-1]
    expected = scale * np.array([output - 0.5, output - 0.5, *[output] * 8])
    assert_allclose(gradients[last_bias], expected, atol=1e-15)
