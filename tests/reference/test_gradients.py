"""Gradients of the reference against central differences."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

import reference as ref

Array = ref.Array


def slope(f: Callable[[], float], parameter: Array, index: tuple[int, ...]) -> float:
    """Return (f(p + h) − f(p − h))/2h for one element p of a parameter that f reads."""
    h = 1e-5
    kept = parameter[index]
    parameter[index] = kept + h
    above = f()
    parameter[index] = kept - h
    below = f()
    parameter[index] = kept
    return (above - below) / (2 * h)


def check_gradients(
    f: Callable[[], Array], arguments: list[tuple[Array, Array]], dy: Array
) -> None:
    """Compare each argument's gradient with the slope of Σ dy·f in every element."""
    for argument, gradient in arguments:
        assert gradient.shape == argument.shape
        for index in np.ndindex(argument.shape):
            numerical = slope(lambda: float(np.sum(dy * f())), argument, index)
            assert_allclose(gradient[index], numerical, rtol=1e-6, atol=1e-8)


def distinct(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return values 0.1 apart in random order, none near 0, so that ±h crosses no tie or kink."""
    n = math.prod(shape)
    order = rng.permutation(n).astype(np.float64)
    return (0.1 * (order - n // 2 + 0.5)).reshape(shape)


def test_linear_gradients() -> None:
    rng = np.random.default_rng(1)
    x, W, b = rng.normal(size=5), rng.normal(size=(5, 3)), rng.normal(size=3)
    dy = rng.normal(size=3)
    dx, dW, db = ref.linear_backward(dy, x, W)
    check_gradients(lambda: ref.linear(x, W, b), [(x, dx), (W, dW), (b, db)], dy)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        ((5, 4), (3, 2), 1, 0),
        ((5, 4), (3, 2), 1, 2),
        ((6, 5), (3, 2), 2, 0),  # no patch covers the last row
        ((5, 6), (2, 3), 2, 1),
        ((4, 4), (1, 1), 3, 0),  # stride larger than the kernel
    ],
)
def test_conv2d_gradients(
    size: tuple[int, int], kernel: tuple[int, int], stride: int, padding: int, with_bias: bool
) -> None:
    rng = np.random.default_rng(2)
    x, filters = rng.normal(size=(2, *size)), rng.normal(size=(3, 2, *kernel))
    bias = rng.normal(size=3) if with_bias else None

    def f() -> Array:
        return ref.conv2d(x, filters, bias, stride, padding)

    dy = rng.normal(size=f().shape)
    dx, dfilters, dbias = ref.conv2d_backward(dy, x, filters, stride, padding)
    arguments = [(x, dx), (filters, dfilters)]
    if bias is not None:
        arguments.append((bias, dbias))
    check_gradients(f, arguments, dy)


@pytest.mark.parametrize(("size", "stride"), [(2, None), (2, 1), (2, 3), (3, 2), (3, None)])
@pytest.mark.parametrize("shape", [(2, 6, 6), (2, 5, 7)])
def test_pooling_gradients(shape: tuple[int, ...], size: int, stride: int | None) -> None:
    rng = np.random.default_rng(3)
    x = distinct(rng, shape)
    dy = rng.normal(size=ref.max_pool2d(x, size, stride).shape)
    for ties in ("first", "all"):
        dx = ref.max_pool2d_backward(dy, x, size, stride, ties)
        check_gradients(lambda: ref.max_pool2d(x, size, stride), [(x, dx)], dy)
    dx = ref.avg_pool2d_backward(dy, x, size, stride)
    check_gradients(lambda: ref.avg_pool2d(x, size, stride), [(x, dx)], dy)


@pytest.mark.parametrize("name", ref.ACTIVATIONS)
def test_activation_gradients(name: str) -> None:
    rng = np.random.default_rng(4)
    x, dy = distinct(rng, (3, 4)), rng.normal(size=(3, 4))
    dx = ref.ACTIVATIONS_BACKWARD[name](dy, x)
    check_gradients(lambda: ref.ACTIVATIONS[name](x), [(x, dx)], dy)


@pytest.mark.parametrize("loss", ref.LOSSES.values(), ids=ref.LOSSES)
@pytest.mark.parametrize("label", [0, 3])
def test_loss_gradients(loss: Callable[[Array, int], tuple[float, Array]], label: int) -> None:
    z = distinct(np.random.default_rng(5), (4,)) * 10
    _, dz = loss(z, label)
    check_gradients(lambda: np.array(loss(z, label)[0]), [(z, dz)], np.array(1.0))


NETWORKS: dict[str, tuple[ref.Recipe, tuple[int, ...] | None]] = {
    **{name: (recipe, None) for name, recipe in ref.RECIPES.items()},
    "fcnn, three hidden layers": (ref.RECIPES["fcnn"], (12, 11, 9)),
    "two-layer, sigmoid": (replace(ref.RECIPES["two-layer"], activation="sigmoid"), None),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_network_gradients(network: str) -> None:
    recipe, hidden_sizes = NETWORKS[network]
    rng = np.random.default_rng(6)
    weights = ref.initial_weights(recipe, rng, hidden_sizes)
    images = rng.integers(0, 256, (2, 28, 28), dtype=np.uint8)
    labels = [3, 7]
    _, gradients = ref.batch_loss_and_gradients(recipe, weights, images, labels)
    assert gradients.keys() == weights.keys()

    def mean_loss() -> float:
        logits = [ref.forward(recipe, weights, image)[-1] for image in images]
        losses = [ref.LOSSES[recipe.loss](z, y)[0] for z, y in zip(logits, labels, strict=True)]
        return sum(losses) / len(losses)

    for key, w in weights.items():
        assert np.any(gradients[key])
        for flat in rng.choice(w.size, size=2, replace=False):
            index = tuple(int(i) for i in np.unravel_index(flat, w.shape))
            numerical = slope(mean_loss, w, index)
            assert_allclose(gradients[key][index], numerical, rtol=1e-5, atol=1e-9, err_msg=key)
