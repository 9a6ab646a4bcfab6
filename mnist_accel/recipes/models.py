"""The recipes: networks, each with the training of its source.

`RECIPES` is the table of all recipes; to add a recipe, add an entry. Initial weights are those of
the source if it specifies them, otherwise those for the activation. `fast99` has no source: its
network and its training were chosen on images held out of the training set (docs/decisions/0015).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from backends import ACTIVATIONS, Aliases, Backend, as_integers, resolve_name
from mnist_accel.data import DataForm
from mnist_accel.data.batches import Sampling
from mnist_accel.nn.initializers import Initializer, Normal, Zeros, default_init
from mnist_accel.nn.inputs import Features, Input, Pixels
from mnist_accel.nn.layers import Activation, Conv2d, Flatten, Layer, Linear, MaxPool2d
from mnist_accel.nn.losses import BinaryCrossEntropy, Loss, Quadratic, SoftmaxCrossEntropy
from mnist_accel.nn.network import Network

CLASSES = 10
Builder = Callable[[Sequence[int], str], list[Layer]]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A network and the default settings of its training.

    A field with the name of a setting contains its default; `TrainSettings` describes the settings.

    Attributes:
        summary: one line for display.
        build: function of the hidden sizes and the hidden activation that returns the layers.
        loss: what training minimizes.
        input: what the first layer takes.
        epochs: length of the training in epochs; 0 if `iterations` gives it.
        iterations: length of the training in steps; 0 if `epochs` gives it.
        hidden_sizes: units of the hidden linear layers; empty if there are none.
    """

    summary: str
    build: Builder
    loss: Loss
    input: Pixels = Pixels((784,))
    hidden_sizes: tuple[int, ...] = ()
    activation: str = ""
    optimizer: str
    lr: float
    weight_decay: float = 0.0
    schedule: str = "constant"
    batch_size: int
    sampling: Sampling = "shuffle"
    epochs: int = 0
    iterations: int = 0
    limit_train: int = 0
    limit_test: int = 0
    log_every: int = 100
    validation_every: int = 1


def _dense(
    hidden_sizes: Sequence[int],
    activation: str,
    *,
    weight_init: Initializer | None = None,
    bias_init: Initializer | None = None,
) -> list[Layer]:
    """Return linear layers, by default with the initializer for the activation and biases of 0."""
    linear = partial(
        Linear, weight_init=weight_init or default_init(activation), bias_init=bias_init or Zeros()
    )
    layers: list[Layer] = []
    for units in hidden_sizes:
        layers += [linear(units), Activation(activation)]
    return [*layers, linear(CLASSES)]


def _cnn(hidden_sizes: Sequence[int], activation: str) -> list[Layer]:
    """Return a 3×3 convolution without bias and activation, max-pooling and a linear layer."""
    return [
        Conv2d(8, kernel_size=3, bias=False, uniform=True, weight_init=Normal(1 / 9)),
        MaxPool2d(2, ties="all"),
        Flatten(),
        Linear(CLASSES, weight_init=Normal(1 / 1352)),
    ]


def _two_convolutions(
    hidden_sizes: Sequence[int], activation: str, *, channels: tuple[int, int], padding: int
) -> list[Layer]:
    """Return two 5×5 convolutions, each with max-pooling, and linear layers."""
    layers: list[Layer] = []
    for count, pixels in zip(channels, (padding, 0), strict=True):
        init = default_init(activation)
        conv = Conv2d(count, kernel_size=5, padding=pixels, weight_init=init)
        layers += [conv, Activation(activation), MaxPool2d(2)]
    return [*layers, Flatten(), *_dense(hidden_sizes, activation)]


RECIPES: dict[str, Recipe] = {
    "fcnn": Recipe(
        summary="L-layer network with sigmoid outputs, full-batch gradient descent",
        build=_dense,
        hidden_sizes=(128, 64),
        activation="relu",
        loss=BinaryCrossEntropy(),
        optimizer="sgd",
        lr=0.0075,
        batch_size=0,
        sampling="full",
        iterations=1000,
        validation_every=100,
    ),
    "two-layer": Recipe(
        summary="784-50-10 softmax network, batches drawn with replacement",
        build=partial(_dense, weight_init=Normal(0.01)),
        hidden_sizes=(50,),
        activation="relu",
        loss=SoftmaxCrossEntropy(),
        optimizer="sgd",
        lr=0.05,
        batch_size=512,
        sampling="replacement",
        iterations=10_000,
    ),
    "backprop": Recipe(
        summary="sigmoid network with quadratic cost, small shuffled batches",
        build=partial(_dense, weight_init=Normal(1.0, output_major=True), bias_init=Normal(1.0)),
        hidden_sizes=(30,),
        activation="sigmoid",
        loss=Quadratic(),
        optimizer="sgd",
        lr=3.0,
        weight_decay=1e-5,
        batch_size=10,
        epochs=30,
        log_every=1000,
    ),
    "cnn": Recipe(
        summary="3×3×8 filters, max-pool, softmax; one image at a time",
        build=_cnn,
        loss=SoftmaxCrossEntropy(),
        optimizer="sgd",
        lr=0.005,
        batch_size=1,
        epochs=5,
        input=Pixels((1, 28, 28), shift=-0.5),
        limit_train=1000,
        limit_test=1000,
    ),
    "three-layer": Recipe(
        summary="784-50-100-10 sigmoid network with softmax outputs",
        build=_dense,
        hidden_sizes=(50, 100),
        activation="sigmoid",
        loss=SoftmaxCrossEntropy(),
        optimizer="adam",
        lr=0.002,
        batch_size=64,
        epochs=20,
        schedule="cosine",
        log_every=500,
    ),
    "lenet": Recipe(
        summary="LeNet-5 with ReLU and max-pool, to 99 % in ten epochs",
        build=partial(_two_convolutions, channels=(6, 16), padding=2),
        hidden_sizes=(120, 84),
        activation="relu",
        loss=SoftmaxCrossEntropy(),
        optimizer="adam",
        lr=0.002,
        batch_size=64,
        epochs=10,
        schedule="one-cycle",
        input=Pixels((1, 28, 28)),
    ),
    "fast99": Recipe(
        summary="two convolutions and two linear layers, to 99 % in four epochs",
        build=partial(_two_convolutions, channels=(8, 32), padding=0),
        hidden_sizes=(128,),
        activation="relu",
        loss=SoftmaxCrossEntropy(),
        optimizer="adam",
        lr=0.006,
        batch_size=64,
        epochs=4,
        schedule="one-cycle",
        input=Pixels((1, 28, 28)),
    ),
}
DEFAULT_MODEL = "two-layer"
MODEL_ALIASES: Aliases = {"lenet5": ("lenet",)}


def create_model(
    name: str,
    *,
    backend: Backend | str = "auto",
    seed: int = 0,
    hidden_sizes: Sequence[int] | None = None,
    activation: str | None = None,
    dtype: str = "float32",
    form: DataForm | None = None,
) -> Network:
    """Return the network of a recipe with initial weights.

    Args:
        name: a key of `RECIPES`; "LeNet" means "lenet".
        backend: a backend, or the name of one.
        seed: seed of the initial weights.
        hidden_sizes: units of the hidden linear layers; None for those of the recipe.
        activation: a key of `backends.ACTIVATIONS` for the hidden layers; None for that of the
            recipe.
        dtype: "float32" or "float64".
        form: the form of the data, such as `load_dataset("csv:FILE").form`; None for that of MNIST.

    Raises:
        ValueError: the recipe is unknown, or it does not accept an argument or the data.
        TypeError: an argument has a wrong type.
        BackendUnavailableError: the named backend cannot run here.
    """
    recipe, name = get_recipe(name), model_name(name)
    form = form or DataForm()
    layers = recipe_layers(name, hidden_sizes=hidden_sizes, activation=activation)
    try:
        taken = _input_of(recipe, form)
        layers = _with_classes(layers, form.classes)
        if len(taken.shape) > len(recipe.input.shape):
            layers = [Flatten(), *layers]
        return Network(
            layers,
            recipe.loss,
            input=taken,
            backend=backend,
            seed=seed,
            dtype=dtype,
            name=name,
        )
    except ValueError as error:
        if form == DataForm():
            raise
        raise ValueError(f"model {name!r} does not fit {form}: {error}") from error


def _with_classes(layers: list[Layer], classes: int) -> list[Layer]:
    """Return the layers with another number of logits.

    Raises:
        ValueError: the last layer is not linear.
    """
    last = layers[-1]
    if not isinstance(last, Linear):
        if classes == CLASSES:
            return layers
        raise ValueError(f"its last layer is {last.kind}, which has no number of classes")
    return [*layers[:-1], replace(last, units=classes)]


def _input_of(recipe: Recipe, form: DataForm) -> Input:
    """Return what the first layer of a recipe takes of data of a form.

    Raises:
        ValueError: the recipe takes images, and the data are none.
    """
    takes_images, shape = len(recipe.input.shape) > 1, form.shape
    side = math.isqrt(math.prod(shape))
    if takes_images and form.kind == "pixels" and shape == (side * side,):
        shape = side, side  # rows of pixels, as `load_mnist` returns them
    if takes_images and len(shape) == 1:
        raise ValueError(
            f"its convolutions take images; use a model of linear layers, such as {DEFAULT_MODEL}"
        )
    shape = (1, *shape) if len(shape) == 2 else shape
    if not takes_images and form.image_size is not None and len(set(form.shape)) == 1:
        shape = (math.prod(form.shape),)  # a network on vectors accepts square images
    return replace(recipe.input, shape=shape) if form.kind == "pixels" else Features(shape)


def recipe_layers(
    name: str, *, hidden_sizes: Sequence[int] | None, activation: str | None
) -> list[Layer]:
    """Return the layers of a recipe; arguments and errors as `create_model`."""
    name = model_name(name)
    recipe = RECIPES[name]
    if hidden_sizes is None:
        hidden_sizes = recipe.hidden_sizes
    elif not recipe.hidden_sizes:
        raise ValueError(f"model {name!r} has no hidden layers, so hidden_sizes cannot be set")
    else:
        hidden_sizes = as_integers("hidden_sizes", hidden_sizes, at_least=1)
    if activation is None:
        activation = recipe.activation
    elif not recipe.activation:
        raise ValueError(f"model {name!r} has no hidden activation, so activation cannot be set")
    else:
        activation = resolve_name("activation", activation, ACTIVATIONS)
    return recipe.build(hidden_sizes, activation)


def get_recipe(name: str) -> Recipe:
    """Return the recipe called `name`.

    Raises:
        ValueError: no recipe has this name.
    """
    return RECIPES[model_name(name)]


def model_name(name: str) -> str:
    """Return the name of a recipe that `name` means: "LeNet" means "lenet".

    Raises:
        TypeError: the name is not a string.
        ValueError: no recipe has this name.
    """
    return resolve_name("model", name, RECIPES, MODEL_ALIASES)
