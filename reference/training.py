"""Forward and backward passes of whole networks, and training."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from reference.activations import ACTIVATIONS, ACTIVATIONS_BACKWARD
from reference.layers import Array, conv2d, conv2d_backward, linear, linear_backward
from reference.losses import LOSSES, NUMBER_LOSSES
from reference.networks import (
    Activation,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Recipe,
    get_recipe,
    layers_for,
)
from reference.optimizers import Past, Weights, update
from reference.pooling import max_pool2d, max_pool2d_backward
from reference.schedules import Schedule, constant_lr


def forward(recipe: str | Recipe, weights: Mapping[str, Array], image: ArrayLike) -> list[Array]:
    """Return the input of the network and the output of each layer, for one image.

    The last output are the logits.

    Args:
        recipe: a key of `RECIPES`, or a recipe.
        weights: parameters W1, b1, …
        image: pixels 0…255, or other numbers as the recipe states, in any shape.
    """
    recipe = get_recipe(recipe)
    scaled = np.asarray(image, dtype=np.float64) / recipe.white + recipe.pixel_shift
    x: Array = scaled.reshape(recipe.input_shape)
    values = [x]
    for layer in layers_for(recipe, weights):
        match layer:
            case Conv2d(W=W, b=b, padding=padding):
                x = conv2d(x, weights[W], None if b is None else weights[b], padding=padding)
            case MaxPool2d():
                x = max_pool2d(x)
            case Activation(name=name):
                x = ACTIVATIONS[name](x)
            case Flatten():
                x = x.ravel()
            case Linear(W=W, b=b):
                x = linear(x, weights[W], weights[b])
        values.append(x)
    return values


def loss_and_gradients(
    recipe: str | Recipe, weights: Mapping[str, Array], image: ArrayLike, target: int | Array
) -> tuple[float, Weights]:
    """Return the loss of one image and its gradient for every parameter, by the chain rule.

    The target is a class, or numbers (outputs,) with a loss of `NUMBER_LOSSES`.
    """
    recipe = get_recipe(recipe)
    *inputs, logits = forward(recipe, weights, image)
    formulas: Mapping[str, Callable[..., tuple[float, Array]]] = LOSSES | NUMBER_LOSSES
    loss, d = formulas[recipe.loss](logits, target)
    gradients = {}
    for layer, x in zip(reversed(layers_for(recipe, weights)), reversed(inputs), strict=True):
        match layer:
            case Conv2d(W=W, b=b, padding=padding):
                d, gradients[W], dbias = conv2d_backward(d, x, weights[W], padding=padding)
                if b is not None:
                    gradients[b] = dbias
            case MaxPool2d(ties=ties):
                d = max_pool2d_backward(d, x, ties=ties)
            case Activation(name=name):
                d = ACTIVATIONS_BACKWARD[name](d, x)
            case Flatten():
                d = d.reshape(x.shape)
            case Linear(W=W, b=b):
                d, gradients[W], gradients[b] = linear_backward(d, x, weights[W])
    return loss, gradients


def batch_loss_and_gradients(
    recipe: str | Recipe,
    weights: Mapping[str, Array],
    images: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
) -> tuple[float, Weights]:
    """Return loss and gradients, each as the mean over the examples of the batch.

    `sample_weight` (N,) has a factor of the loss of each example; None for 1.
    """
    images, targets = np.asarray(images), np.asarray(targets)
    factors = np.ones(len(images)) if sample_weight is None else np.asarray(sample_weight)
    mean_loss = 0.0
    mean_gradients = {key: np.zeros_like(w) for key, w in weights.items()}
    for image, target, factor in zip(images, targets, factors, strict=True):
        loss, gradients = loss_and_gradients(recipe, weights, image, target)
        mean_loss += factor * loss / len(images)
        for key, gradient in gradients.items():
            mean_gradients[key] += factor * gradient / len(images)
    return mean_loss, mean_gradients


def train(
    recipe: str | Recipe,
    weights: Mapping[str, ArrayLike],
    images_u8: ArrayLike,
    labels: ArrayLike,
    *,
    optimizer: str,
    lr: float,
    steps: int,
    batch_size: int,
    schedule: Schedule = constant_lr,
    l2: float = 0.0,
    **options: float,
) -> tuple[Weights, list[float]]:
    """Train with `steps` updates on consecutive batches of the images, in the order given.

    Args:
        recipe: a key of `RECIPES`, or a recipe.
        weights: parameters W1, b1, … at the start, of any float type; not changed.
        images_u8: (N, …) with 784 pixels 0…255 for each image.
        labels: classes (N,).
        optimizer: a key of `OPTIMIZERS`.
        lr: base learning rate.
        steps: number of updates.
        batch_size: examples per update.
        schedule: function of (step, total_steps, lr) that returns the learning rate.
        l2: factor of ½·Σ W² / batch_size in the loss of a batch; biases are not part of the sum.
        **options: numbers of the optimizer: weight_decay, momentum, beta1, …

    Returns:
        The weights after the last update, and the mean loss of every batch before its update.

    Raises:
        ValueError: there are fewer than steps·batch_size images.
    """
    images, classes = np.asarray(images_u8), np.asarray(labels)
    if len(images) < steps * batch_size:
        raise ValueError(f"{len(images)} images, expected at least {steps} × {batch_size}")
    current = {key: np.array(w, dtype=np.float64) for key, w in weights.items()}
    state: dict[str, Past] = {}
    losses = []
    for step in range(steps):
        batch = slice(step * batch_size, (step + 1) * batch_size)
        loss, gradients = batch_loss_and_gradients(recipe, current, images[batch], classes[batch])
        for key in (key for key in current if key.startswith("W")):
            loss += 0.5 * l2 * float((current[key] ** 2).sum()) / batch_size
            gradients[key] += l2 * current[key] / batch_size
        rate = schedule(step, steps, lr)
        current, state = update(
            optimizer, current, gradients, state, lr=rate, t=step + 1, **options
        )
        losses.append(loss)
    return current, losses
