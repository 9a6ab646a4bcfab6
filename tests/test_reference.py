"""The judge on trial: central differences, and small examples whose answers are written out."""

import ast
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import reference as ref

Array = ref.Array


def test_imports_only_numpy_and_the_standard_library() -> None:
    imported = set()
    for node in ast.walk(ast.parse(Path(ref.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"numpy"}


# ----------------------------------------------------------------------- central differences


def slope(f: Callable[[], float], parameter: Array, index: tuple[int, ...]) -> float:
    """(f(p + h) − f(p − h))/2h for one element p of a parameter that f reads."""
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
    """Compare Σ dy·f's slope in every element of each argument with the gradient beside it."""
    for argument, gradient in arguments:
        assert gradient.shape == argument.shape
        for index in np.ndindex(argument.shape):
            numerical = slope(lambda: float(np.sum(dy * f())), argument, index)
            assert_allclose(gradient[index], numerical, rtol=1e-6, atol=1e-8)


def distinct(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Values 0.1 apart in random order, none near 0: no ties and no kink within reach of h."""
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
        ((6, 5), (3, 2), 2, 0),  # the last row is out of reach of any patch
        ((5, 6), (2, 3), 2, 1),
        ((4, 4), (1, 1), 3, 0),  # stride beyond the kernel
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


# ------------------------------------------------------------------- layers, by written answers


def test_linear_by_hand() -> None:
    W, b = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), np.array([0.5, 0.0, -1.0])
    assert_array_equal(ref.linear(np.array([1.0, -1.0]), W, b), [-2.5, -3.0, -4.0])


def test_conv2d_by_hand() -> None:
    x = np.array([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]])
    filters = np.array([[[[1.0, 2.0], [3.0, 4.0]]], [[[0.0, 1.0], [0.0, 0.0]]]])
    bias = np.array([0.0, 10.0])
    # 1·1 + 2·2 + 3·4 + 4·5 = 37: the filter lies on the image as it is written, not flipped.
    assert_array_equal(ref.conv2d(x, filters, bias), [[[37, 47], [67, 77]], [[12, 13], [15, 16]]])
    assert_array_equal(ref.conv2d(x, filters[:1], None, stride=2, padding=1), [[[4, 18], [36, 77]]])


def test_conv2d_sums_over_input_channels() -> None:
    x = np.array([[[2.0]], [[3.0]]])
    filters = np.array([[[[10.0]], [[100.0]]]])
    assert_array_equal(ref.conv2d(x, filters, None), [[[320.0]]])


TIED = np.array([[[5.0, 5.0, 0.0, 1.0], [2.0, 5.0, 3.0, 3.0]]])


@pytest.mark.parametrize(
    ("ties", "expected"),
    [
        ("first", [[[10, 0, 0, 0], [0, 0, 7, 0]]]),
        ("all", [[[10, 10, 0, 0], [0, 10, 7, 7]]]),
    ],
)
def test_max_pool2d_ties(ties: str, expected: list[list[list[float]]]) -> None:
    assert_array_equal(ref.max_pool2d(TIED), [[[5, 3]]])
    dy = np.array([[[10.0, 7.0]]])
    assert_array_equal(ref.max_pool2d_backward(dy, TIED, ties=ties), expected)


@pytest.mark.parametrize("value", [0.0, -0.5])
def test_max_pool2d_of_all_equal_windows(value: float) -> None:
    x, dy = np.full((1, 2, 4), value), np.array([[[1.0, 2.0]]])
    assert_array_equal(ref.max_pool2d(x), [[[value, value]]])
    assert_array_equal(ref.max_pool2d_backward(dy, x, ties="first"), [[[1, 0, 2, 0], [0, 0, 0, 0]]])
    assert_array_equal(ref.max_pool2d_backward(dy, x, ties="all"), [[[1, 1, 2, 2], [1, 1, 2, 2]]])


def test_max_pool2d_first_is_row_major() -> None:
    x, dy = np.array([[[0.0, 4.0], [4.0, 0.0]]]), np.array([[[1.0]]])
    assert_array_equal(ref.max_pool2d_backward(dy, x, ties="first"), [[[0, 1], [0, 0]]])


@pytest.mark.parametrize(
    ("ties", "expected"),
    [
        ("first", [[[0, 0, 0], [0, 3, 0], [0, 0, 0]]]),
        ("all", [[[0, 0, 0], [0, 3, 2], [0, 0, 0]]]),
    ],
)
def test_max_pool2d_overlapping_windows_add_up(
    ties: str, expected: list[list[list[float]]]
) -> None:
    x = np.array([[[0.0, 1.0, 0.0], [0.0, 9.0, 9.0], [0.0, 0.0, 0.0]]])
    dy = np.array([[[1.0, 2.0], [0.0, 0.0]]])
    assert_array_equal(ref.max_pool2d_backward(dy, x, 2, 1, ties), expected)


def test_pooling_drops_an_odd_row_and_column() -> None:
    x = np.array([[[1.0, 2.0, 99.0], [3.0, 4.0, 99.0], [99.0, 99.0, 99.0]]])
    dy = np.array([[[8.0]]])
    assert_array_equal(ref.max_pool2d(x), [[[4.0]]])
    assert_array_equal(ref.max_pool2d_backward(dy, x), [[[0, 0, 0], [0, 8, 0], [0, 0, 0]]])
    assert_array_equal(ref.avg_pool2d(x), [[[2.5]]])
    assert_array_equal(ref.avg_pool2d_backward(dy, x), [[[2, 2, 0], [2, 2, 0], [0, 0, 0]]])


def test_unknown_tie_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="'last'"):
        ref.max_pool2d_backward(np.ones((1, 1, 1)), np.ones((1, 2, 2)), ties="last")


def test_relu_passes_no_gradient_at_zero() -> None:
    x = np.array([-1.0, 0.0, -0.0, 2.0])
    assert_array_equal(ref.relu(x), [0, 0, 0, 2])
    assert_array_equal(ref.relu_backward(np.full(4, 3.0), x), [0, 0, 0, 3])


def test_sigmoid_by_hand_and_far_out() -> None:
    x = np.array([0.0, math.log(3), -math.log(3), 1000.0, -1000.0])
    assert_allclose(ref.sigmoid(x), [0.5, 0.75, 0.25, 1.0, 0.0], rtol=1e-15)
    assert_allclose(
        ref.sigmoid_backward(np.ones(5), x), [0.25, 0.1875, 0.1875, 0.0, 0.0], rtol=1e-15
    )
    assert_allclose(ref.sigmoid(np.array([-100.0])), [math.exp(-100)], rtol=1e-14)


# ------------------------------------------------------------------- losses, by written answers


def test_softmax_cross_entropy_by_hand_and_far_out() -> None:
    loss, dz = ref.softmax_cross_entropy(np.log([1.0, 2.0, 5.0]), 1)
    assert_allclose(loss, math.log(4))  # −log(2/8)
    assert_allclose(dz, [1 / 8, 2 / 8 - 1, 5 / 8])

    far = np.array([1000.0, -1000.0, 0.0])
    assert_array_equal(ref.softmax(far), [1, 0, 0])
    loss, dz = ref.softmax_cross_entropy(far, 0)
    assert loss == 0
    assert_array_equal(dz, [0, 0, 0])
    loss, dz = ref.softmax_cross_entropy(far, 1)
    assert loss == 2000
    assert_array_equal(dz, [1, -1, 0])
    loss, dz = ref.softmax_cross_entropy(np.array([-1000.0, -1000.0]), 0)
    assert_allclose(loss, math.log(2))
    assert_array_equal(dz, [-0.5, 0.5])


def test_binary_cross_entropy_by_hand_and_far_out() -> None:
    loss, dz = ref.binary_cross_entropy(np.array([math.log(3), 0.0]), 0)
    assert_allclose(loss, math.log(4 / 3) + math.log(2))  # −log(3/4) − log(1 − 1/2)
    assert_allclose(dz, [-0.25, 0.5])

    far = np.array([1000.0, -1000.0])
    loss, dz = ref.binary_cross_entropy(far, 0)
    assert loss == 0
    assert_array_equal(dz, [0, 0])
    loss, dz = ref.binary_cross_entropy(far, 1)
    assert loss == 2000
    assert_array_equal(dz, [1, -1])


def test_quadratic_by_hand_and_far_out() -> None:
    loss, dz = ref.quadratic(np.array([0.0, math.log(3)]), 0)
    assert_allclose(loss, 0.5 * (0.5**2 + 0.75**2))
    assert_allclose(dz, [-0.5 * 0.25, 0.75 * 0.1875])

    loss, dz = ref.quadratic(np.array([1000.0, -1000.0]), 1)
    assert loss == 1
    assert_array_equal(dz, [0, 0])


# ---------------------------------------------------------------------- optimizers, schedules


def two_steps(name: str, **options: float) -> list[float]:
    """W after each of two steps from 1, with lr 0.1 and the gradients 2 and −1."""
    weights = {"W1": np.array([1.0])}
    state: ref.State = {}
    seen = []
    for g in (2.0, -1.0):
        gradients = {"W1": np.array([g])}
        weights, state = ref.OPTIMIZERS[name](weights, gradients, state, 0.1, **options)
        seen.append(float(weights["W1"][0]))
    return seen


@pytest.mark.parametrize(
    ("name", "weight_decay", "expected"),
    [
        ("sgd", 0.0, [0.8, 0.9]),
        # g = 2 + 0.5·1 = 2.5, then −1 + 0.5·0.75 = −0.625
        ("sgd", 0.5, [0.75, 0.8125]),
        # v = 2, then 0.9·2 − 1 = 0.8
        ("momentum", 0.0, [0.8, 0.72]),
        # v = 2.5, then 0.9·2.5 + (−1 + 0.375) = 1.625
        ("momentum", 0.5, [0.75, 0.5875]),
        # 2 + 0.9·2 = 3.8, then −1 + 0.9·0.8 = −0.28
        ("nesterov", 0.0, [0.62, 0.648]),
        # 2.5 + 0.9·2.5 = 4.75; then g = −1 + 0.2625, v = 2.25 + g, g + 0.9·v = 0.62375
        ("nesterov", 0.5, [0.525, 0.462625]),
        # s = 4, then 5
        ("adagrad", 0.0, [0.9, 0.9 + 0.1 / math.sqrt(5)]),
        # g = 2.5, then −1 + 0.45 = −0.55
        ("adagrad", 0.5, [0.9, 0.9 + 0.055 / math.sqrt(2.5**2 + 0.55**2)]),
        # s = 0.01·4, then 0.99·0.04 + 0.01
        ("rmsprop", 0.0, [0.0, 0.1 / math.sqrt(0.0496)]),
        # s = 0.01·2.5², √s = 0.25, w = 0; then g = −1 and s = 0.99·0.0625 + 0.01
        ("rmsprop", 0.5, [0.0, 0.1 / math.sqrt(0.071875)]),
        # m̂ = 2, v̂ = 4; then m = 0.08, v = 0.004996
        ("adam", 0.0, [0.9, 0.9 - 0.1 * (0.08 / 0.19) / math.sqrt(0.004996 / 0.001999)]),
        # g = 2.5, then −1 + 0.45 = −0.55; m = 0.17, v = 0.00624375 + 0.0003025
        ("adam", 0.5, [0.9, 0.9 - 0.1 * (0.17 / 0.19) / math.sqrt(0.00654625 / 0.001999)]),
        ("adamw", 0.0, [0.9, 0.9 - 0.1 * (0.08 / 0.19) / math.sqrt(0.004996 / 0.001999)]),
        # 1·0.95 − 0.1; then 0.85·0.95 and Adam's step with the undecayed gradients
        ("adamw", 0.5, [0.85, 0.8075 - 0.1 * (0.08 / 0.19) / math.sqrt(0.004996 / 0.001999)]),
    ],
)
def test_optimizers_by_hand(name: str, weight_decay: float, expected: list[float]) -> None:
    assert_allclose(two_steps(name, weight_decay=weight_decay), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "gradient", "step"),
    [
        ("adagrad", 1e-10, 0.1 / 2),  # g/(g + 1e-10)
        ("rmsprop", 1e-7, 0.1 * 10 / 2),  # g/(0.1·g + 1e-8)
        ("adam", 1e-8, 0.1 / 2),  # g/(g + 1e-8)
        ("adamw", 1e-8, 0.1 / 2),
    ],
)
def test_eps_is_added_outside_the_root(name: str, gradient: float, step: float) -> None:
    weights, gradients = {"W1": np.array([1.0])}, {"W1": np.array([gradient])}
    new, _ = ref.OPTIMIZERS[name](weights, gradients, {}, 0.1)
    assert_allclose(new["W1"], [1 - step], rtol=1e-9)


@pytest.mark.parametrize("name", ref.OPTIMIZERS)
def test_optimizers_keep_parameters_apart_and_leave_their_input(name: str) -> None:
    weights = {"W1": np.array([[1.0, 2.0]]), "b1": np.array([3.0])}
    gradients = {"W1": np.array([[2.0, 0.0]]), "b1": np.array([-2.0])}
    state: ref.State = {}
    new, _ = ref.OPTIMIZERS[name](weights, gradients, state, 0.1)
    assert new["W1"][0, 0] < 1
    assert new["W1"][0, 1] == 2
    assert new["b1"][0] > 3
    assert_array_equal(weights["W1"], [[1, 2]])
    assert_array_equal(weights["b1"], [3])
    assert state == {}


@pytest.mark.parametrize(
    ("schedule", "total_steps", "expected"),
    [
        (ref.constant_lr, 4, [1, 1, 1, 1]),
        (partial(ref.step_lr, every=2, gamma=0.5), 5, [1, 1, 0.5, 0.5, 0.25]),
        (ref.cosine_lr, 4, [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]),
        # Warm-up over 3 of 10 steps: 0.04 + 0.96·step/3; then 6 steps down by half a cosine.
        (
            ref.one_cycle_lr,
            10,
            [
                0.04,
                0.36,
                0.68,
                1.0,
                4e-6 + (1 - 4e-6) * (0.5 + 0.25 * math.sqrt(3)),
                4e-6 + (1 - 4e-6) * 0.75,
                4e-6 + (1 - 4e-6) * 0.5,
                4e-6 + (1 - 4e-6) * 0.25,
                4e-6 + (1 - 4e-6) * (0.5 - 0.25 * math.sqrt(3)),
                4e-6,
            ],
        ),
    ],
)
def test_schedules_by_hand(schedule: ref.Schedule, total_steps: int, expected: list[float]) -> None:
    rates = [schedule(step, total_steps, 3.0) for step in range(total_steps)]
    assert_allclose(rates, 3.0 * np.array(expected), rtol=1e-12)


# -------------------------------------------------------------------------- recipes, training


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
    """The recipe with that rule in all its max-pools."""
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
    if recipe == "cnn":  # every window is tied in all of its four places
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


@pytest.mark.parametrize("recipe", ref.RECIPES)
def test_training_lowers_the_loss_of_a_repeated_batch(recipe: str) -> None:
    rng = np.random.default_rng(11)
    batch, labels = rng.integers(0, 256, (2, 28, 28), dtype=np.uint8), [3, 8]
    start = ref.initial_weights(recipe, rng)
    _, losses = ref.train(
        recipe, start, np.tile(batch, (3, 1, 1)), labels * 3,
        optimizer="sgd", lr=0.001, steps=3, batch_size=2,
    )  # fmt: skip
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_training_takes_consecutive_batches_scheduled_rates_and_options() -> None:
    rng = np.random.default_rng(12)
    images = rng.integers(0, 256, (7, 28, 28), dtype=np.uint8)  # the seventh is left over
    labels = rng.integers(0, 10, 7)
    start = {
        key: w.astype(np.float32)
        for key, w in ref.initial_weights("two-layer", rng, hidden_sizes=(5,)).items()
    }
    kept = {key: w.copy() for key, w in start.items()}
    weights, losses = ref.train(
        "two-layer", start, images, labels,
        optimizer="momentum", lr=0.2, steps=2, batch_size=3,
        schedule=ref.cosine_lr, momentum=0.5, weight_decay=0.1,
    )  # fmt: skip

    w0 = {key: w.astype(np.float64) for key, w in start.items()}
    loss0, g0 = ref.batch_loss_and_gradients("two-layer", w0, images[:3], labels[:3])
    v0 = {key: g0[key] + 0.1 * w0[key] for key in w0}
    w1 = {key: w0[key] - 0.2 * v0[key] for key in w0}
    loss1, g1 = ref.batch_loss_and_gradients("two-layer", w1, images[3:6], labels[3:6])
    w2 = {key: w1[key] - 0.1 * (0.5 * v0[key] + g1[key] + 0.1 * w1[key]) for key in w0}

    assert losses == [loss0, loss1]
    for key in start:
        assert weights[key].dtype == np.float64
        assert_allclose(weights[key], w2[key], rtol=1e-12)
        assert_array_equal(start[key], kept[key])


def test_batch_loss_and_gradients_are_means_over_examples() -> None:
    rng = np.random.default_rng(13)
    weights = ref.initial_weights("backprop", rng, hidden_sizes=(4,))
    images = rng.integers(0, 256, (2, 1, 28, 28), dtype=np.uint8)
    loss, gradients = ref.batch_loss_and_gradients("backprop", weights, images, [1, 2])
    loss_a, a = ref.loss_and_gradients("backprop", weights, images[0], 1)
    loss_b, b = ref.loss_and_gradients("backprop", weights, images[1], 2)
    assert_allclose(loss, (loss_a + loss_b) / 2)
    for key, gradient in gradients.items():
        assert_allclose(gradient, (a[key] + b[key]) / 2)


def test_too_few_images_are_refused() -> None:
    weights = ref.initial_weights("backprop", np.random.default_rng(14), hidden_sizes=(2,))
    with pytest.raises(ValueError, match="3 images, expected at least 2 × 2"):
        ref.train(
            "backprop", weights, np.zeros((3, 784), dtype=np.uint8), [0, 1, 2],
            optimizer="sgd", lr=1.0, steps=2, batch_size=2,
        )  # fmt: skip
