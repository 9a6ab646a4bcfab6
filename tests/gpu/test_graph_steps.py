"""Training with steps captured in CUDA graphs matches eager training, for all kinds of networks."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import Backend
from mnist_accel import nn
from mnist_accel.data import Dataset
from mnist_accel.errors import DivergedError
from mnist_accel.nn import layers, losses
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.network import Network
from mnist_accel.recipes.models import RECIPES, create_model, recipe_layers
from mnist_accel.training.trainer import Trainer
from tests.support.compiled_training import NETWORKS, OPTIMIZERS, make_network
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import Emulator, RawKernel, ThreadOrder
from tests.support.emulated_backend import EmulatedBackend
from tests.support.gpu_training import (
    assert_few_steps_match_eager,
    centers,
    emulated_and_cupy,
    small_cnn,
    small_convolutions,
    twin_networks,
)

PAGE = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.emulated
L = layers

# Batch sizes on a GPU and on the emulator, which needs smaller ones because it is slow. The
# smallest batches of `backprop` and `cnn` run as persistent kernels.
BATCH_SIZES = [
    ("fcnn", 500, 5),
    ("two-layer", 512, 17),
    ("backprop", 10, 10),
    ("backprop", 64, 17),
    ("cnn", 1, 1),
    ("cnn", 64, 2),
    ("three-layer", 64, 17),
    ("lenet", 64, 2),
    ("fast99", 64, 2),
]


@emulated_and_cupy
@pytest.mark.parametrize(("name", "cupy_batch_size", "emulated_batch_size"), BATCH_SIZES)
def test_every_recipe_matches_eager_training(
    backend: Backend,
    mnist: Dataset,
    name: str,
    cupy_batch_size: int,
    emulated_batch_size: int,
) -> None:
    recipe = RECIPES[name]
    is_emulated = isinstance(backend, EmulatedBackend)
    batch_size = emulated_batch_size if is_emulated else cupy_batch_size
    models = tuple(create_model(name, backend=backend, seed=3) for _ in range(2))
    count = max(3, batch_size * 2 - 1)  # the last batch of an epoch is smaller
    optimizer = nn.create_optimizer(recipe.optimizer, lr=recipe.lr)
    if isinstance(optimizer, nn.Adam):
        # With eps = 1e-8, Adam turns the rounding error of a gradient near 0 into a full-size step.
        optimizer = replace(optimizer, eps=1e-3)
    assert_few_steps_match_eager(
        models,
        (mnist.x_train[:count], mnist.t_train[:count]),
        optimizer,
        batch_size=batch_size,
        sampling=recipe.sampling,
        steps=10,
    )


@emulated_and_cupy
@pytest.mark.parametrize("optimizer", [nn.SGD(lr=0.1), nn.Adam(eps=1e-3)])
def test_l2_penalty_matches_eager_training(
    backend: Backend, mnist: Dataset, optimizer: nn.UpdateRule
) -> None:
    stack = [L.Conv2d(3, 3), L.Tanh(), L.MaxPool2d(), L.Flatten(), L.Linear(7), L.Linear(10)]
    loss = losses.SoftmaxCrossEntropy(l2=0.5)
    models = twin_networks(stack, (1, 8, 8), backend, loss=loss)
    assert_few_steps_match_eager(models, centers(mnist, 7), optimizer, batch_size=4)


@emulated_and_cupy
def test_sequential_batches_match_eager_training(backend: Backend, mnist: Dataset) -> None:
    models = twin_networks([L.Linear(5), L.Linear(10)], (64,), backend)
    images, labels = centers(mnist, 7)
    assert_few_steps_match_eager(
        models, (images, labels), nn.SGD(lr=0.1), batch_size=3, sampling="sequential", steps=5
    )


@emulated_and_cupy
@pytest.mark.parametrize(("name", "batch_size"), [("cnn", 1), ("backprop", 4)])
def test_persistent_kernels_do_not_train_with_an_l2_penalty(
    backend: Backend, mnist: Dataset, name: str, batch_size: int
) -> None:
    recipe = RECIPES[name]
    stack = recipe_layers(name, hidden_sizes=None, activation=None)
    loss = replace(recipe.loss, l2=0.5)
    models = twin_networks(stack, recipe.input.shape, backend, loss=loss)
    data = mnist.x_train[:7], mnist.t_train[:7]
    assert_few_steps_match_eager(models, data, nn.SGD(lr=0.1), batch_size=batch_size)


@pytest.mark.parametrize("order", ThreadOrder)
def test_fused_classifier_backpropagates_through_several_convolutions(
    mnist: Dataset, order: ThreadOrder
) -> None:
    backend = EmulatedBackend(Emulator(order, seed=5))
    stack = [L.Conv2d(3, 2), L.ReLU(), L.Conv2d(2, 2), L.Tanh(), L.MaxPool2d(), L.Conv2d(4, 2)]
    stack += [L.ReLU(), L.Flatten(), L.Linear(10)]
    models = twin_networks(stack, (1, 8, 8), backend)
    data = centers(mnist, 7)
    assert_few_steps_match_eager(models, data, nn.SGD(lr=0.05), batch_size=4)
    assert "fused_classifier" in backend.emulator.launched


@pytest.mark.parametrize(
    ("batch_size", "is_small"),
    [(3, False), (3, True), (1, True)],
    ids=["several launches", "one launch", "persistent kernel"],
)
def test_nan_weight_gives_nan_loss(
    emulated: EmulatedBackend, mnist: Dataset, batch_size: int, *, is_small: bool
) -> None:
    """Maxima and activations propagate NaN, so divergence is detected."""
    model = (
        small_cnn(emulated, L.ReLU(), filters=2) if is_small else small_convolutions(emulated)[0]
    )
    model.parameters.flat[0] = np.nan  # a weight of the first filter
    trainer = Trainer(model, "sgd", batch_size=batch_size)
    assert trainer.compiled is not None
    run, first_losses = trainer.compiled.run, []

    def spy(*args: Any) -> Any:
        results = run(*args)
        first_losses.append(results.losses[0])
        return results

    trainer.compiled.run = spy  # type: ignore[method-assign]
    side = model.input_shape[-1]
    images = np.ascontiguousarray(mnist.x_train[:3, :side, :side])
    with pytest.raises(DivergedError):
        trainer.fit(images, mnist.t_train[:3], epochs=1)
    assert np.isnan(first_losses[0])


@pytest.mark.parametrize(
    "stack",
    [
        pytest.param([L.Conv2d(10, 2), L.AvgPool2d(7)], id="average pooling last"),
        pytest.param(
            [L.Conv2d(4, 3), L.ReLU(), L.MaxPool2d(), L.Conv2d(10, 3)], id="convolution last"
        ),
        pytest.param([L.AvgPool2d(), L.Tanh(), L.Conv2d(10, 4)], id="separate activation"),
    ],
)
def test_networks_without_a_linear_layer_match(
    emulated: EmulatedBackend, mnist: Dataset, stack: list[L.Layer]
) -> None:
    models = twin_networks([*stack, L.Flatten()], (1, 8, 8), emulated)
    data = centers(mnist, 9)
    assert_few_steps_match_eager(models, data, nn.SGD(lr=0.02), batch_size=4)


# These take long to emulate, and the other networks launch the same kernels.
SLOW = {"many channels", "3×3 and 2×2 feature maps", "1×1 feature maps", "wide"}


@emulated_and_cupy
@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - SLOW))
def test_networks_outside_the_recipes_match(backend: Backend, mnist: Dataset, name: str) -> None:
    models = make_network(name, backend), make_network(name, backend)
    data = mnist.x_train[:11], mnist.t_train[:11]
    assert_few_steps_match_eager(models, data, nn.SGD(lr=0.02), batch_size=4)


@emulated_and_cupy
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_matches(backend: Backend, mnist: Dataset, name: str) -> None:
    models = make_network("two activations", backend), make_network("two activations", backend)
    data = mnist.x_train[:19], mnist.t_train[:19]
    assert_few_steps_match_eager(models, data, OPTIMIZERS[name], batch_size=8)


@emulated_and_cupy
@pytest.mark.parametrize("loss", [losses.BinaryCrossEntropy(), losses.Quadratic()])
def test_every_loss_matches_after_an_activation(
    backend: Backend, mnist: Dataset, loss: losses.Loss
) -> None:
    stack = [L.Linear(12), L.ReLU(), L.Linear(10), L.Tanh()]
    models = twin_networks(stack, (784,), backend, loss=loss)
    data = mnist.x_train[:19], mnist.t_train[:19]
    assert_few_steps_match_eager(models, data, nn.SGD(lr=0.05), batch_size=8)


@emulated_and_cupy
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "loss", [losses.SoftmaxCrossEntropy(), losses.BinaryCrossEntropy(), losses.Quadratic()]
)
def test_every_loss_matches_after_linear_layers(
    backend: Backend, mnist: Dataset, loss: losses.Loss, bias: bool
) -> None:
    stack = [L.Linear(12), L.Sigmoid(), L.Linear(7), L.Tanh(), L.Linear(10, bias=bias)]
    models = twin_networks(stack, (784,), backend, loss=loss)
    data = mnist.x_train[:19], mnist.t_train[:19]
    if isinstance(backend, EmulatedBackend):
        backend.emulator.launched.clear()
    assert_few_steps_match_eager(models, data, nn.Adam(lr=0.01), batch_size=8)
    if isinstance(backend, EmulatedBackend):
        assert "fused_classifier" in backend.emulator.launched


def test_more_than_32_classes_use_a_separate_loss_kernel(
    emulated: EmulatedBackend, mnist: Dataset
) -> None:
    stack = [L.Linear(6), L.ReLU(), L.Linear(33)]
    models = twin_networks(stack, (784,), emulated, dtype="float32")
    data = mnist.x_train[:9], mnist.t_train[:9]
    emulated.emulator.launched.clear()
    assert_few_steps_match_eager(models, data, nn.Adam(), batch_size=4)
    assert "fused_classifier" not in emulated.emulator.launched


@emulated_and_cupy
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float_images_match(backend: Backend, mnist: Dataset, dtype: str) -> None:
    models = make_network("one layer", backend, dtype), make_network("one layer", backend, dtype)
    images = mnist.x_train[:19] / np.float64(255)
    data = images, mnist.t_train[:19]
    assert_few_steps_match_eager(models, data, nn.SGD(), batch_size=8)


@emulated_and_cupy
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float_images_are_shifted(backend: Backend, mnist: Dataset, dtype: str) -> None:
    stack = [L.Linear(10), L.ReLU(), L.Linear(10)]
    pixels = Pixels((64,), shift=-0.5)
    models = [
        Network(stack, losses.SoftmaxCrossEntropy(), input=pixels, backend=backend, dtype=dtype)
        for _ in range(2)
    ]
    images, labels = centers(mnist, 19)
    data = images / np.float64(255), labels
    assert_few_steps_match_eager(models, data, nn.SGD(lr=0.1), batch_size=17)


@pytest.mark.parametrize("name", RECIPES)
def test_launches_per_step_are_those_that_the_documentation_lists(
    mnist: Dataset, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulated = EmulatedBackend()
    launched = emulated.emulator.launched

    def record(kernel: RawKernel, *arguments: Any, **options: Any) -> None:
        launched.append(kernel.name)

    monkeypatch.setattr(RawKernel, "_launch", record)  # results are not needed here
    monkeypatch.setattr(EmulatedCupy, "empty", EmulatedCupy.zeros)
    # Smaller batches of `backprop` and `cnn` run as persistent kernels.
    is_convolutional = "conv2d" in create_model(name, backend="numpy").kinds
    batch_size = 2 if is_convolutional else max(17, RECIPES[name].batch_size or 0)
    trainer = Trainer(
        create_model(name, backend=emulated), RECIPES[name].optimizer, batch_size=batch_size
    )
    data = trainer.prepare(mnist.x_train[:batch_size], mnist.t_train[:batch_size])
    trainer.fit(data, iterations=1)  # captures the graph
    launched.clear()
    trainer.fit(data, iterations=2)
    # Each epoch of the chunk has a launch for its image order.
    first, second = np.split(np.array([kernel for kernel in launched if kernel != "order"]), 2)
    assert first.tolist() == second.tolist()
    (count, names) = re.findall(rf"^\| `{name}` \| (\d+) \| (.*) \|$", PAGE, re.MULTILINE)[0]
    assert " ".join(first) == names
    assert len(first) == int(count)


def test_filters_over_32_pixels_are_not_compiled(emulated: EmulatedBackend) -> None:
    stack = [L.Conv2d(1, 33, padding=3), L.Flatten(), L.Linear(10)]
    model = Network(
        stack, losses.SoftmaxCrossEntropy(), input=Pixels((1, 28, 28)), backend=emulated
    )
    assert "conv2d with kernel_size=33 has no compiled form" in Trainer(model).not_compiled


def test_more_than_16_layers_with_parameters_are_not_compiled(emulated: EmulatedBackend) -> None:
    """All layers are passed to one kernel in a structure of fixed size."""
    stack = [L.Linear(10) for _ in range(17)]
    model = Network(stack, losses.SoftmaxCrossEntropy(), input=Pixels((784,)), backend=emulated)
    assert "1 to 16 layers with parameters, not 17" in Trainer(model).not_compiled
