"""Compiled predictions on a GPU, on the emulator and, where there is one, on a GPU."""

from typing import Any

import numpy as np
import pytest

from backends import Backend, get_backend
from mnist_accel.data import Dataset
from mnist_accel.nn import layers, losses
from mnist_accel.nn.inputs import Features, Pixels
from mnist_accel.nn.network import Network
from mnist_accel.recipes.models import RECIPES, create_model
from tests.support.closeness import assert_close
from tests.support.cuda_emulator.emulated_cupy import DeviceMemory, EmulatedCupy, Graph, Stream
from tests.support.cuda_emulator.raw_module import RawKernel
from tests.support.emulated_backend import EmulatedBackend
from tests.support.gpu_training import emulated_and_cupy

pytestmark = pytest.mark.emulated
L = layers


def assert_agrees(model: Network, images: np.ndarray[Any, Any]) -> None:
    """Compare a model with the same network on NumPy, which predicts eagerly."""
    assert model.not_compiled == ""
    twin = Network(
        model.layers,
        model.loss,
        input=model.input,
        backend=get_backend("numpy"),
        dtype=model.dtype,
    )
    twin.load_state_dict(model.state_dict())
    settings = {"dtype": model.dtype, "terms": 784}
    assert_close(model.predict_logits(images), twin.predict_logits(images), **settings)
    if model.loss.has_probabilities:
        assert_close(model.predict_proba(images), twin.predict_proba(images), **settings)


@emulated_and_cupy
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe(backend: Backend, mnist: Dataset, name: str) -> None:
    assert_agrees(create_model(name, backend=backend), mnist.x_test[:2])


@emulated_and_cupy
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "loss", [losses.SoftmaxCrossEntropy(), losses.BinaryCrossEntropy(), losses.SquaredError()]
)
def test_separate_stages_and_outputs_of_every_loss(
    backend: Backend, mnist: Dataset, loss: losses.Loss, dtype: str
) -> None:
    stack = [L.AvgPool2d(2), L.Sigmoid(), L.MaxPool2d(3, stride=2), L.Conv2d(3, 3, padding=1)]
    stack += [L.ReLU(), L.MaxPool2d(), L.Flatten(), L.Linear(35)]
    shape = Pixels((1, 28, 28), shift=-0.5)
    model = Network(stack, loss, input=shape, backend=backend, dtype=dtype)
    assert_agrees(model, mnist.x_test[:3])
    assert_agrees(model, mnist.x_test[:1] / np.float64(255))


@pytest.mark.parametrize("count", [1, 8, 9, 31])
def test_number_of_images_does_not_change_a_bit(
    mnist: Dataset, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """31 images are three graphs of 8 and one that is not full."""
    monkeypatch.setattr("backends.cupy.inference.CAPACITIES", (1, 8))
    model = create_model("two-layer", backend=EmulatedBackend(), hidden_sizes=(5,))
    images = mnist.x_test[:count]
    single = [model.predict_logits(images[i : i + 1])[0] for i in range(count)]
    assert np.array_equal(model.predict_logits(images), np.stack(single))


def test_a_call_is_one_upload_one_graph_and_one_download(
    mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = create_model("two-layer", backend=EmulatedBackend(), hidden_sizes=(5,))
    model.predict_proba(mnist.x_test[:3])  # captures the graph
    calls: list[str] = []
    for owner, names in (
        (EmulatedCupy, ("array", "asarray", "zeros", "empty", "asnumpy")),
        (DeviceMemory, ("copy_from_host_async", "copy_to_host_async")),
        (Stream, ("begin_capture",)),
        (Graph, ("launch",)),
        (RawKernel, ("kernel",)),
    ):
        for name in names:
            function = getattr(owner, name)

            def call(*args: Any, name: str = name, function: Any = function, **more: Any) -> Any:
                calls.append(name)
                return function(*args, **more)

            monkeypatch.setattr(owner, name, call)
    model.predict_proba(mnist.x_test[3:6])
    assert calls == ["copy_from_host_async", "launch", "copy_to_host_async"]


@emulated_and_cupy
def test_changed_weights_take_effect(backend: Backend, mnist: Dataset) -> None:
    model = create_model("two-layer", backend=backend, hidden_sizes=(5,))
    for _ in range(2):
        assert_agrees(model, mnist.x_test[:2])
        model.load_state_dict({name: 2 * value for name, value in model.state_dict().items()})


@emulated_and_cupy
@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan])
def test_inputs_out_of_range_are_an_error(backend: Backend, value: float) -> None:
    images = np.zeros((2, 784), np.float32)
    images[1, 5] = value
    model = create_model("two-layer", backend=backend, hidden_sizes=(5,))
    with pytest.raises(ValueError, match=f"float images must be in 0…1, got {value} at index"):
        model.predict(images)
    stack, loss = [L.Linear(3)], losses.SoftmaxCrossEntropy()
    features = Network(stack, loss, input=Features(4), backend=backend)
    with pytest.raises(ValueError, match="inf"):
        features.predict(np.array([[1, 2, np.inf, 4]]))


def test_a_large_network_predicts_fewer_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.cupy.inference.MAX_VALUES", 8 * 784)
    model = create_model("two-layer", backend=EmulatedBackend(), hidden_sizes=(5,))
    inference = model._compiled_inference
    assert inference is not None
    assert inference._capacities == [1, 8]


def test_networks_that_cannot_be_compiled_predict_eagerly(mnist: Dataset) -> None:
    stack = [L.Conv2d(3, 3, stride=2), L.Flatten(), L.Linear(10)]
    loss = losses.SoftmaxCrossEntropy()
    model = Network(stack, loss, input=Pixels((1, 28, 28)), backend=EmulatedBackend())
    assert "stride=2 has no compiled form" in model.not_compiled
    assert model.predict_proba(mnist.x_test[:3]).shape == (3, 10)
