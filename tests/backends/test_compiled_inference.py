"""Compiled predictions agree with eager predictions, for many networks and batch sizes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from backends import Backend, get_backend
from backends.numba.backend import NumbaBackend
from backends.numba.inference import NumbaInference
from mnist_accel.data import Dataset
from mnist_accel.nn import layers, losses
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.network import Network
from mnist_accel.recipes.models import RECIPES, create_model
from tests.support.closeness import assert_close

L = layers
NETWORKS: dict[str, tuple[tuple[int, ...], list[layers.Layer]]] = {
    "one layer": ((784,), [L.Linear(10)]),
    "without any bias": ((784,), [L.Linear(12, bias=False), L.Tanh(), L.Linear(3, bias=False)]),
    "five classes": ((784,), [L.Linear(9), L.Sigmoid(), L.Linear(5)]),
    "an activation first": ((784,), [L.ReLU(), L.Linear(10)]),
    "dropout": ((784,), [L.Linear(20), L.ReLU(), L.Dropout(0.5), L.Linear(10)]),
    "pooling first": (
        (1, 28, 28),
        [L.AvgPool2d(2), L.Sigmoid(), L.MaxPool2d(3, stride=2), L.Flatten(), L.Linear(10)],
    ),
    "odd sizes": (
        (1, 28, 28),
        [
            L.Conv2d(3, 3, padding=1),
            L.ReLU(),
            L.MaxPool2d(3, stride=2),
            L.Conv2d(17, 4),
            L.MaxPool2d(),
            L.Flatten(),
            L.Sigmoid(),
            L.Linear(11, bias=False),
        ],
    ),
}


@pytest.fixture(scope="module")
def numba() -> Backend:
    return get_backend("numba")


def network(name: str, backend: Backend, dtype: str = "float32", shift: float = 0.0) -> Network:
    input_shape, row = NETWORKS[name]
    return Network(
        row,
        losses.SoftmaxCrossEntropy(),
        input=Pixels(input_shape, shift=shift),
        backend=backend,
        dtype=dtype,
    )


def assert_agrees(model: Network, images: np.ndarray[Any, Any]) -> None:
    """Compare a model with the same network on NumPy, which predicts eagerly."""
    assert model._compiled_inference is not None
    twin = Network(
        model.layers,
        model.loss,
        input=model.input,
        backend=get_backend("numpy"),
        dtype=model.dtype,
    )
    twin.load_state_dict(model.state_dict())
    assert twin._compiled_inference is None
    settings = {"dtype": model.dtype, "terms": 784}
    assert_close(model.predict_logits(images), twin.predict_logits(images), **settings)
    assert_close(model.predict_proba(images), twin.predict_proba(images), **settings)
    assert model.predict_proba(images).dtype == model.dtype


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe(numba: Backend, mnist: Dataset, name: str, dtype: str) -> None:
    model = create_model(name, backend=numba, dtype=dtype)
    assert_agrees(model, mnist.x_test[:50])


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", RECIPES)
def test_float_images(numba: Backend, mnist: Dataset, name: str, dtype: str) -> None:
    model = create_model(name, backend=numba, dtype=dtype)
    assert_agrees(model, mnist.x_test[:3] / np.float64(255))


@pytest.mark.parametrize("shift", [0.0, -0.5])
@pytest.mark.parametrize("name", NETWORKS)
def test_other_networks(numba: Backend, mnist: Dataset, name: str, shift: float) -> None:
    assert_agrees(network(name, numba, shift=shift), mnist.x_test[:40])


@pytest.mark.parametrize("loss", [losses.BinaryCrossEntropy(), losses.Quadratic()])
def test_probabilities_of_every_loss(numba: Backend, mnist: Dataset, loss: losses.Loss) -> None:
    row = [L.Linear(12), L.ReLU(), L.Linear(10)]
    assert_agrees(Network(row, loss, input=Pixels((784,)), backend=numba), mnist.x_test[:40])


@pytest.mark.parametrize("images", [0, 1, 2, 31, 257, 1000])
def test_batches_of_every_size(numba: Backend, mnist: Dataset, images: int) -> None:
    model = create_model("cnn", backend=numba)
    together = model.predict_logits(mnist.x_test[:images])
    assert together.shape == (images, 10)
    single = [model.predict_logits(mnist.x_test[i : i + 1])[0] for i in range(images)]
    assert np.array_equal(together, np.array(single, together.dtype).reshape(-1, 10))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_do_not_depend_on_the_number_of_threads(mnist: Dataset, threads: int) -> None:
    images = mnist.x_test[:403]
    expected = create_model("lenet", backend=get_backend("numba")).predict_logits(images)
    backend = get_backend("numba", threads=threads)
    assert np.array_equal(create_model("lenet", backend=backend).predict_logits(images), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_relu_of_extreme_numbers(numba: Backend, mnist: Dataset, dtype: str) -> None:
    row = [L.Linear(8), L.ReLU()]
    model = Network(
        row, losses.SoftmaxCrossEntropy(), input=Pixels((784,)), backend=numba, dtype=dtype
    )
    limits = np.finfo(dtype)
    numbers = np.array([-np.inf, limits.min, -1, 0, limits.tiny, limits.max, np.inf, np.nan], dtype)
    model.parameters.views["W1"][...] = 0
    model.parameters.views["b1"][...] = numbers
    np.testing.assert_array_equal(
        model.predict_logits(mnist.x_test[:1])[0], np.maximum(numbers, 0), strict=True
    )


@pytest.mark.parametrize("name", ["backprop", "lenet"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_do_not_share_cache_lines_of_the_results(
    mnist: Dataset, name: str, dtype: str
) -> None:
    model = create_model(name, backend=get_backend("numba", threads=2), dtype=dtype)
    inference = model._compiled_inference
    assert isinstance(inference, NumbaInference)
    results = model.predict_logits(mnist.x_test[:403])
    images_per_tile = inference._buffers[2][0]["capacity"][0]
    assert results.ctypes.data % 64 == 0
    assert images_per_tile * results.strides[0] % 64 == 0


def test_a_prediction_does_not_wait_for_threads_that_start_late(mnist: Dataset) -> None:
    backend = get_backend("numba", threads=2)
    assert isinstance(backend, NumbaBackend)
    model = create_model("lenet", backend=backend)
    expected = model.predict_logits(mnist.x_test[:200])
    free = threading.Event()
    occupied = [backend._executor().submit(free.wait) for _ in range(2)]
    try:
        assert np.array_equal(model.predict_logits(mnist.x_test[:200]), expected)
    finally:
        free.set()
    assert all(task.result() for task in occupied)
    assert np.array_equal(model.predict_logits(mnist.x_test[:200]), expected)


@pytest.mark.parametrize("threads", [3, 5])
def test_a_prediction_waits_for_all_threads_that_compute(mnist: Dataset, threads: int) -> None:
    """Threads start and end in another order each time, because they are more than the cores."""
    images = mnist.x_test[: 16 * (threads + 1)]
    expected = create_model("lenet", backend=get_backend("numba")).predict_logits(images)
    model = create_model("lenet", backend=get_backend("numba", threads=threads))
    for _ in range(300):
        assert np.array_equal(model.predict_logits(images), expected)


def test_changes_of_weights_in_place_take_effect(numba: Backend, mnist: Dataset) -> None:
    model = create_model("cnn", backend=numba)
    model.predict(mnist.x_test[:2])
    for view in model.parameters.views.values():
        view *= 0.5
        assert_agrees(model, mnist.x_test[:2])


@pytest.mark.parametrize("name", ["numba", "numpy"])
def test_prepare_does_not_change_the_network(mnist: Dataset, name: str) -> None:
    model = create_model("cnn", backend=get_backend(name))
    expected = model.state_dict()
    model.prepare()
    assert all(np.array_equal(value, expected[key]) for key, value in model.state_dict().items())
    assert model.predict(mnist.x_test[:3]).shape == (3,)


def test_concurrent_predictions(numba: Backend, mnist: Dataset) -> None:
    model = create_model("lenet", backend=numba)
    parts = [mnist.x_test[i * 50 : i * 50 + 50] for i in range(8)]
    expected = [model.predict_logits(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(model.predict_logits, parts * 5))
    for result, wanted in zip(got, expected * 5, strict=True):
        assert np.array_equal(result, wanted)


@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 299])
def test_pixels_out_of_range_are_an_error(numba: Backend, value: float, place: int) -> None:
    images = np.zeros((300, 784), np.float32)
    images[place, 5] = value
    model = create_model("two-layer", backend=numba)
    with pytest.raises(ValueError, match=rf"float images must be in 0…1, got {value} at index"):
        model.predict(images)
    assert np.isfinite(model.predict_proba(np.ones((1, 784), np.float32))).all()


@pytest.mark.parametrize("shift", [-0.5, 0.5])
@pytest.mark.parametrize("value", [-0.5, 1.5, np.nan])
def test_pixels_out_of_range_are_an_error_also_if_they_are_shifted(
    numba: Backend, shift: float, value: float
) -> None:
    images = np.full((40, 784), 0.5, np.float32)
    images[20, 100] = value
    with pytest.raises(ValueError, match=r"float images must be in 0…1"):
        network("five classes", numba, shift=shift).predict(images)


def test_images_that_are_not_contiguous(numba: Backend, mnist: Dataset) -> None:
    model = create_model("two-layer", backend=numba)
    images = mnist.x_test[:40]
    expected = model.predict_logits(images)
    assert np.array_equal(model.predict_logits(np.asfortranarray(images)), expected)
    assert np.array_equal(model.predict_logits(images[::-1])[::-1], expected)


def test_networks_that_cannot_be_compiled_predict_eagerly(numba: Backend, mnist: Dataset) -> None:
    row = [L.Conv2d(3, 3, stride=2), L.Flatten(), L.Linear(10)]
    model = Network(row, losses.SoftmaxCrossEntropy(), input=Pixels((1, 28, 28)), backend=numba)
    assert model._compiled_inference is None
    assert model.predict_proba(mnist.x_test[:3]).shape == (3, 10)
    with pytest.raises(ValueError, match="float images must be in"):
        model.predict(np.full((1, 784), 7.0))


@pytest.mark.parametrize("hidden", [16, 50])
def test_predictions_of_many_images_equal_those_of_few(mnist: Dataset, hidden: int) -> None:
    """For many images, the weights are copied to aligned rows, again in each call."""
    model = create_model("two-layer", backend=NumbaBackend(), hidden_sizes=[hidden])
    images = np.concatenate([mnist.x_test[:500]] * 5)
    for _ in range(2):
        for view in model.parameters.views.values():
            view *= 0.5
        few = [model.predict_proba(images[begin : begin + 500]) for begin in (0, 500)]
        many = model.predict_proba(images)
        np.testing.assert_array_equal(many[:1000], np.concatenate(few))
        np.testing.assert_array_equal(many[-1], few[0][-1])
