"""JAX: the project's layers, losses and optimizers as functions.

Timings in comments are per step on one core (AMD EPYC, AVX2) with JAX 0.10.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
from jax import lax
from jax import numpy as jnp

from mnist_accel.nn import (
    SGD,
    Activation,
    Adam,
    AvgPool2d,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    Loss,
    MaxPool2d,
    Network,
    UpdateRule,
)

Array: TypeAlias = Any
Parameters: TypeAlias = dict[str, Array]

_ACTIVATIONS = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}

# On a GPU, JAX multiplies in TF32 by default. This is set once, because setting it for a block of
# code takes time in each step.
jax.config.update("jax_default_matmul_precision", "highest")


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Return x·weight + bias."""
    y = x @ weight
    return y if bias is None else y + bias


def conv2d(
    x: Array, weight: Array, bias: Array | None = None, *, stride: int, padding: int
) -> Array:
    """Convolve x (N, C, H, W): on a CPU as one matrix product with all patches, else with XLA.

    XLA's own convolutions are slow on a CPU, especially for images of several channels: with the
    matrix product, lenet takes 0.3 ms instead of 0.8 ms at batch size 1, and 19 ms instead of 46 ms
    at 64; cnn takes the same time. Channels-last was slower: at 64, cnn took 9.2 ms instead of
    7.1 ms, and lenet 55 ms instead of 49 ms.
    """
    if jax.default_backend() == "cpu":
        padded = jnp.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        pixels = jnp.stack(_patch_elements(padded, weight.shape[2], stride))
        taps, count, channels, height, width = pixels.shape
        patches = pixels.transpose(2, 0, 1, 3, 4).reshape(channels * taps, -1)
        product = (weight.reshape(len(weight), -1) @ patches).reshape(-1, count, height, width)
        y = product.transpose(1, 0, 2, 3)
    else:
        y = lax.conv_general_dilated(
            x,
            weight,
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
        )
    return y if bias is None else y + bias[:, None, None]


def max_pool2d(x: Array, *, size: int, stride: int) -> Array:
    """Return the maximum of each patch; of equal maxima, the first receives the gradient.

    On a CPU, comparing strided slices is faster than `lax.reduce_window`, whose gradient XLA
    scatters serially: cnn takes 5.7 ms instead of 7.1 ms at batch size 64, and 52 ms instead of
    115 ms at 512.
    """
    if jax.default_backend() != "cpu":
        shape, step = (1, 1, size, size), (1, 1, stride, stride)
        return lax.reduce_window(x, -jnp.inf, lax.max, shape, step, "VALID")
    first, *others = _patch_elements(x, size, stride)
    for other in others:
        first = jnp.where(other > first, other, first)
    return first


def avg_pool2d(x: Array, *, size: int, stride: int) -> Array:
    """Return the mean of each patch."""
    return sum(_patch_elements(x, size, stride)) / size**2


def _patch_elements(x: Array, size: int, stride: int) -> list[Array]:
    """Return one array per element of a patch, which contains that element of all patches."""
    rows, columns = ((length - size) // stride + 1 for length in x.shape[2:])
    return [
        x[
            :,
            :,
            i : i + stride * (rows - 1) + 1 : stride,
            j : j + stride * (columns - 1) + 1 : stride,
        ]
        for i in range(size)
        for j in range(size)
    ]


def _apply(layer: Layer, parameters: Sequence[Array], x: Array) -> Array:
    match layer:
        case Linear():
            return linear(x, *parameters)
        case Conv2d(stride=stride, padding=padding):
            return conv2d(x, *parameters, stride=stride, padding=padding)
        case MaxPool2d(size=size):
            return max_pool2d(x, size=size, stride=layer.effective_stride)
        case AvgPool2d(size=size):
            return avg_pool2d(x, size=size, stride=layer.effective_stride)
        case Activation(kind=kind) if kind in _ACTIVATIONS:
            return _ACTIVATIONS[kind](x)
        case Flatten():
            return x.reshape(len(x), -1)
    raise ValueError(f"JAX networks do not support a layer of kind {layer.kind!r}")


def logits_function(model: Network) -> Callable[[Parameters, Array], Array]:
    """Return the function that maps (parameters, images) to the logits of the network."""
    plan, shape, number = [], model.input_shape, 0
    for layer in model.layers:
        names = layer.parameter_shapes(shape)
        number += bool(names)
        plan.append((layer, [f"{name}{number}" for name in names]))
        shape = layer.output_shape(shape)

    def logits(parameters: Parameters, x: Array) -> Array:
        for layer, names in plan:
            x = _apply(layer, [parameters[name] for name in names], x)
        return x

    return logits


def softmax_cross_entropy(logits: Array, labels: Array) -> Array:
    """Return the mean of −log softmax(logits) at the labels (N,)."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -chosen.mean()


def mean_loss(loss: Loss, logits: Array, labels: Array) -> Array:
    """Return the loss, summed over classes and averaged over images."""
    if loss.kind == "softmax_cross_entropy":
        return softmax_cross_entropy(logits, labels)
    targets = jax.nn.one_hot(labels, logits.shape[1])
    match loss.kind:
        case "binary_cross_entropy":
            return (jax.nn.softplus(logits) - logits * targets).sum() / len(logits)
        case "quadratic":
            return jnp.square(jax.nn.sigmoid(logits) - targets).sum() / (2 * len(logits))
    raise ValueError(f"JAX networks do not support the loss {loss.kind!r}")


def sgd(optimizer: SGD, parameters: Any, gradients: Any, state: Any, step: Array, lr: Array) -> Any:
    """Return parameters and velocities after an update; all are trees of the same structure."""
    gradients = _decayed(optimizer, parameters, gradients)
    if optimizer.momentum:
        state = [jax.tree.map(lambda v, g: optimizer.momentum * v + g, state[0], gradients)]
        if optimizer.nesterov:
            gradients = jax.tree.map(lambda g, v: g + optimizer.momentum * v, gradients, state[0])
        else:
            gradients = state[0]
    return jax.tree.map(lambda w, g: w - lr * g, parameters, gradients), state


def adam(
    optimizer: Adam, parameters: Any, gradients: Any, state: Any, step: Array, lr: Array
) -> Any:
    """Return parameters and [means, means of squares] after update number `step`, from 1."""
    gradients = _decayed(optimizer, parameters, gradients)
    beta1, beta2 = optimizer.beta1, optimizer.beta2
    means = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state[0], gradients)
    squares = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, state[1], gradients)
    step_size = lr / _bias_correction(beta1, step)
    correction = 1 / jnp.sqrt(_bias_correction(beta2, step))

    def move(w: Array, m: Array, v: Array) -> Array:
        return w - step_size * m / (jnp.sqrt(v) * correction + optimizer.eps)

    return jax.tree.map(move, parameters, means, squares), [means, squares]


def _bias_correction(beta: float, step: Array) -> Array:
    """Return 1 − betaˢᵗᵉᵖ; `expm1` keeps its float32 precision if it is small."""
    return -jnp.expm1(step * math.log(beta)) if beta else 1.0


def _decayed(optimizer: UpdateRule, parameters: Any, gradients: Any) -> Any:
    if not optimizer.weight_decay:
        return gradients
    return jax.tree.map(lambda g, w: g + optimizer.weight_decay * w, gradients, parameters)


UPDATES: dict[type[UpdateRule], Callable[..., Any]] = {SGD: sgd, Adam: adam}
