"""The networks of the recipes as lists of layers, with random weights for tests."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from reference.layers import Array
from reference.optimizers import Weights


@dataclass(frozen=True)
class Conv2d:
    """A convolution with filters `weights[W]` and, unless `b` is None, bias `weights[b]`."""

    W: str
    b: str | None
    shape: tuple[int, int, int, int]
    padding: int = 0


@dataclass(frozen=True)
class MaxPool2d:
    """2×2 max-pooling."""

    ties: str


@dataclass(frozen=True)
class Activation:
    """An element-wise activation: "relu", "sigmoid" or "tanh"."""

    name: str


@dataclass(frozen=True)
class Flatten:
    """Images (channels, height, width) as vectors, in C order."""


@dataclass(frozen=True)
class Linear:
    """A fully connected layer with `weights[W]` and `weights[b]`."""

    W: str
    b: str


Layer = Conv2d | MaxPool2d | Activation | Flatten | Linear


@dataclass(frozen=True)
class Recipe:
    """A network with its loss.

    Attributes:
        loss: a key of `LOSSES` or `NUMBER_LOSSES`; the output sigmoid or softmax is part of it.
        activation: the activation after every linear layer except the last.
        dense_sizes: width of the flattened input and of each linear layer.
        convolutional: the layers before the linear ones.
        pixel_shift: added to pixels after scaling to 0…1.
        input_shape: shape of an image, (channels, height, width); (features, 1, 1) of other inputs.
        white: pixels are divided by it; 1 for inputs that are not scaled.
    """

    loss: str
    activation: str
    dense_sizes: tuple[int, ...]
    convolutional: tuple[Layer, ...] = ()
    pixel_shift: float = 0.0
    input_shape: tuple[int, int, int] = (1, 28, 28)
    white: float = 255.0

    def layers(self, dense_layers: int | None = None) -> list[Layer]:
        """Return all layers in order; `dense_layers` replaces the number of linear layers."""
        count = len(self.dense_sizes) - 1 if dense_layers is None else dense_layers
        first = 1 + sum(isinstance(layer, Conv2d) for layer in self.convolutional)
        layers: list[Layer] = [*self.convolutional, Flatten()]
        for n in range(first, first + count):
            if n > first:
                layers.append(Activation(self.activation))
            layers.append(Linear(f"W{n}", f"b{n}"))
        return layers


def two_convolutions(first: int, second: int, *, padding: int) -> tuple[Layer, ...]:
    """Return two 5×5 convolutions with ReLU and max-pooling each."""
    return (
        Conv2d("W1", "b1", (first, 1, 5, 5), padding=padding),
        Activation("relu"),
        MaxPool2d("first"),
        Conv2d("W2", "b2", (second, first, 5, 5)),
        Activation("relu"),
        MaxPool2d("first"),
    )


RECIPES = {
    "fcnn": Recipe("binary_cross_entropy", "relu", (784, 128, 64, 10)),
    "two-layer": Recipe("softmax_cross_entropy", "relu", (784, 50, 10)),
    "backprop": Recipe("quadratic", "sigmoid", (784, 30, 10)),
    "cnn": Recipe(
        "softmax_cross_entropy",
        "relu",  # not used: there is one linear layer
        (1352, 10),
        (Conv2d("W1", None, (8, 1, 3, 3)), MaxPool2d("all")),
        pixel_shift=-0.5,
    ),
    "three-layer": Recipe("softmax_cross_entropy", "sigmoid", (784, 50, 100, 10)),
    "lenet": Recipe(
        "softmax_cross_entropy", "relu", (400, 120, 84, 10), two_convolutions(6, 16, padding=2)
    ),
    "fast99": Recipe(
        "softmax_cross_entropy", "relu", (512, 128, 10), two_convolutions(8, 32, padding=0)
    ),
}


def get_recipe(recipe: str | Recipe) -> Recipe:
    """Return the recipe of this name, or `recipe` itself if it is a `Recipe`."""
    return RECIPES[recipe] if isinstance(recipe, str) else recipe


def layers_for(recipe: Recipe, weights: Mapping[str, Array]) -> list[Layer]:
    """Return the layers of a recipe, with as many linear layers as there are weights for."""
    return recipe.layers(sum(W.ndim == 2 for W in weights.values()))


def initial_weights(
    recipe: str | Recipe, rng: np.random.Generator, hidden_sizes: tuple[int, ...] | None = None
) -> Weights:
    """Return random weights for tests; no source initializes its weights like this.

    Weights have variance 2/fan_in. Biases have a standard deviation of 0.1, so that a missing bias
    changes the result. `hidden_sizes` replaces the widths of the hidden linear layers.
    """
    recipe = get_recipe(recipe)
    sizes = recipe.dense_sizes
    if hidden_sizes is not None:
        sizes = (sizes[0], *hidden_sizes, sizes[-1])
    dense_shapes = pairwise(sizes)
    weights = {}
    for layer in recipe.layers(len(sizes) - 1):
        if isinstance(layer, Conv2d):
            out_channels, *fan_in = layer.shape
            weights[layer.W] = rng.standard_normal(layer.shape) * math.sqrt(2 / math.prod(fan_in))
            if layer.b is not None:
                weights[layer.b] = 0.1 * rng.standard_normal(out_channels)
        elif isinstance(layer, Linear):
            n_in, n_out = next(dense_shapes)
            weights[layer.W] = rng.standard_normal((n_in, n_out)) * math.sqrt(2 / n_in)
            weights[layer.b] = 0.1 * rng.standard_normal(n_out)
    return weights
