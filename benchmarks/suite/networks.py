"""The networks of the cases: those of the recipes, at other sizes, and one of another library."""

from collections.abc import Sequence
from dataclasses import replace

from backends import UpdateRule, create_optimizer
from mnist_accel.nn import Conv2d, Network
from mnist_accel.nn.inputs import Features
from mnist_accel.recipes.models import RECIPES, recipe_layers
from reference import RECIPES as REFERENCE_RECIPES
from reference import Recipe as ReferenceRecipe
from reference.networks import two_convolutions

PIXELS = 784
# The LeNet-5 that the authors of SimpleChains.jl measured. It differs from the recipe `lenet`: the
# first convolution has no padding, and Adam has a learning rate of 3e-4.
# https://julialang.org/blog/2022/04/simple-chains/
SIMPLECHAINS = "lenet-5 of SimpleChains.jl"
_SIMPLECHAINS_LR = 3e-4


def create_network(
    name: str,
    *,
    hidden_sizes: Sequence[int] | None = None,
    inputs: int = PIXELS,
    seed: int = 0,
    dtype: str = "float32",
) -> Network:
    """Return the network of a case on NumPy, with initial weights.

    Args:
        name: a recipe or `SIMPLECHAINS`.
        hidden_sizes: units of its hidden layers; those of the recipe if None.
        inputs: numbers per example; other than 784 only for networks of linear layers.
        seed: seed of the initial weights.
        dtype: "float32" or "float64".
    """
    recipe = RECIPES["lenet" if name == SIMPLECHAINS else name]
    if name == SIMPLECHAINS:
        layers = recipe_layers("lenet", hidden_sizes=None, activation=None)
        first = layers[0]
        assert isinstance(first, Conv2d), "lenet begins with a convolution"
        layers[0] = replace(first, padding=0)
    else:
        layers = recipe_layers(name, hidden_sizes=hidden_sizes, activation=None)
    return Network(
        layers,
        recipe.loss,
        input=recipe.input if inputs == PIXELS else Features(inputs),
        backend="numpy",
        seed=seed,
        dtype=dtype,
        name=name,
    )


def optimizer_of(name: str, lr: float | None = None) -> UpdateRule:
    """Return the optimizer of a network; `lr` replaces its learning rate."""
    if name == SIMPLECHAINS:
        return create_optimizer("adam", lr=lr or _SIMPLECHAINS_LR)
    recipe = RECIPES[name]
    return create_optimizer(
        recipe.optimizer, lr=lr or recipe.lr, weight_decay=recipe.weight_decay or None
    )


def reference_of(name: str) -> ReferenceRecipe:
    """Return the network as the loops of `reference` compute it."""
    if name == SIMPLECHAINS:
        lenet = REFERENCE_RECIPES["lenet"]
        sizes = (256, *lenet.dense_sizes[1:])
        convolutions = two_convolutions(6, 16, padding=0)
        return ReferenceRecipe(lenet.loss, lenet.activation, sizes, convolutions)
    return REFERENCE_RECIPES[name]
