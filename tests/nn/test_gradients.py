"""The gradient check accepts correct gradients and rejects wrong ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from backends import ACTIVATIONS, LOSSES, Backend, get_backend
from backends.numpy.backend import NumpyBackend
from mnist_accel.diagnostics.gradient_check import check_gradients
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.layers import (
    AvgPool2d,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
    Tanh,
)
from mnist_accel.nn.losses import BinaryCrossEntropy, Loss, Quadratic, SoftmaxCrossEntropy
from mnist_accel.nn.network import Network
from mnist_accel.recipes.models import RECIPES, create_model
from tests.support.guarded_backend import GuardedBackend

NETWORKS: dict[str, tuple[list[Layer], Loss]] = {
    "strided and padded": (
        [Conv2d(3, 3, stride=2, padding=1), Tanh(), Conv2d(2, 5, stride=3, padding=2), Flatten()],
        SoftmaxCrossEntropy(),
    ),
    "average pools": (
        [Conv2d(2, 5, padding=2), Tanh(), AvgPool2d(2), AvgPool2d(3, stride=2), Flatten()],
        Quadratic(),
    ),
    "overlapping max-pool": (
        [Conv2d(2, 3, bias=False), Sigmoid(), MaxPool2d(3, stride=2), Flatten()],
        BinaryCrossEntropy(),
    ),
    "max-pool of the image": ([MaxPool2d(2), Conv2d(2, 3), ReLU(), Flatten()], Quadratic()),
}
# For each backward operation of a backend, a network that uses it.
BACKWARDS = {
    "linear_backward": "average pools",
    "conv2d_backward": "strided and padded",
    "max_pool2d_backward": "overlapping max-pool",
    "avg_pool2d_backward": "average pools",
    "activation_backward of relu": "max-pool of the image",
    "activation_backward of sigmoid": "overlapping max-pool",
    "activation_backward of tanh": "strided and padded",
    "loss of softmax_cross_entropy": "strided and padded",
    "loss of binary_cross_entropy": "overlapping max-pool",
    "loss of quadratic": "average pools",
}


def noise(count: int) -> tuple[Any, Any]:
    """Return random images and labels; no two pixels are equal, so no maximum is a tie."""
    rng = np.random.default_rng(12)
    return rng.random((count, 784)), rng.integers(10, size=count)


def network(name: str, backend: Backend) -> Network:
    layers, loss = NETWORKS[name]
    return Network(
        [*layers, Linear(10)], loss, input=Pixels((1, 28, 28)), backend=backend, dtype="float64"
    )


@pytest.mark.parametrize("name", RECIPES)
def test_gradients_of_a_recipe(backend: Backend, name: str) -> None:
    model = create_model(name, backend=backend, dtype="float64", seed=1)
    before = model.state_dict()
    results = check_gradients(model, *noise(2), elements=4)
    assert [result.name for result in results] == list(before)
    for result in results:
        assert result.passed, result
        assert result.checked == min(4, before[result.name].size)
    for key, weight in model.state_dict().items():
        np.testing.assert_array_equal(weight, before[key])


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_other_networks(backend: Backend, name: str) -> None:
    for result in check_gradients(network(name, backend), *noise(2), elements=4):
        assert result.passed, result


def scaled(operation: Callable[..., Any], factor: float, kind: str) -> Callable[..., Any]:
    """Return an operation whose gradients are wrong by a factor; the value of a loss is correct.

    With a `kind`, only calls with this kind as the first argument are wrong.
    """

    def wrong(*args: Any, **options: Any) -> Any:
        result = operation(*args, **options)
        if kind and args[0] != kind:
            return result
        if not isinstance(result, tuple):
            return factor * result
        value = [result[0]] if result[0] is not None and result[0].ndim == 0 else []
        gradients = result[len(value) :]
        return (*value, *(None if g is None else factor * g for g in gradients))

    return wrong


@pytest.mark.parametrize("operation", BACKWARDS)
@pytest.mark.parametrize("factor", [0.999, 0.0, -2.0, float("nan")])
def test_wrong_gradient_is_found(
    monkeypatch: pytest.MonkeyPatch, operation: str, factor: float
) -> None:
    backend = NumpyBackend()
    model = network(BACKWARDS[operation], backend)
    assert all(result.passed for result in check_gradients(model, *noise(1), elements=2))
    name, _, kind = operation.partition(" of ")
    monkeypatch.setattr(backend, name, scaled(getattr(backend, name), factor, kind))
    results = check_gradients(model, *noise(1), elements=2)
    assert not all(result.passed for result in results)


def test_every_backward_operation_is_tested_with_wrong_gradients() -> None:
    backwards = {name for name in dir(NumpyBackend) if name.endswith("_backward")}
    backwards.remove("activation_backward")
    activations = {f"activation_backward of {kind}" for kind in ACTIVATIONS}
    # `tests/nn/test_inputs.py` tests the loss of numbers.
    losses = {f"loss of {kind}" for kind in LOSSES if LOSSES[kind].targets == "classes"}
    assert set(BACKWARDS) == backwards | activations | losses


def test_only_the_wrong_gradient_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = get_backend("numpy")
    right = backend.linear_backward

    def without_bias_gradient(*args: Any, **options: Any) -> Any:
        dx, dweight, dbias = right(*args, **options)
        return dx, dweight, np.zeros_like(dbias)

    monkeypatch.setattr(backend, "linear_backward", without_bias_gradient)
    model = create_model("two-layer", backend=backend, dtype="float64")
    failed = [r.name for r in check_gradients(model, *noise(3), elements=5) if not r.passed]
    assert failed == ["b1", "b2"]


def test_gradient_check_runs_in_the_computation_context_of_the_backend() -> None:
    backend = GuardedBackend()
    model = create_model("two-layer", backend=backend, dtype="float64")
    backend.guarded = True
    assert all(result.passed for result in check_gradients(model, *noise(2), elements=2))


def test_empty_batch_is_rejected() -> None:
    model = create_model("two-layer", backend="numpy", dtype="float64")
    with pytest.raises(ValueError, match="expected at least one image, got none"):
        check_gradients(model, *noise(0))
