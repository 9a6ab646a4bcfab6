"""`persistent_cnn`: one launch trains a small CNN image by image, for all steps of a chunk."""

from typing import Any

import numpy as np
import pytest

from backends import Backend
from backends.cupy import workspace as cupy_workspace
from mnist_accel import nn
from mnist_accel.data import Dataset
from mnist_accel.nn import layers, losses
from mnist_accel.recipes.models import create_model
from mnist_accel.training.trainer import Trainer
from tests.support.closeness import assert_close, assert_same_bits
from tests.support.cuda_emulator.raw_module import Emulator, ThreadOrder
from tests.support.emulated_backend import EmulatedBackend
from tests.support.gpu_training import (
    assert_few_steps_match_eager,
    emulated_and_cupy,
    kernels_launched_by_step,
    small_cnn,
)

pytestmark = pytest.mark.emulated

VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "first ties": {"ties": "first"},
    "float64": {"dtype": "float64"},
    "filters divide unevenly among warps": {"filters": 5},
    "largest number of filters": {"filters": 9},
    "5×5 filters": {"filters": 3, "kernel_size": 5},
    "binary cross-entropy": {"filters": 3, "loss": losses.BinaryCrossEntropy()},
    "quadratic loss": {"filters": 3, "loss": losses.Quadratic()},
}


@emulated_and_cupy
@pytest.mark.parametrize("name", VARIANTS)
def test_persistent_cnn_matches_eager_training(backend: Backend, mnist: Dataset, name: str) -> None:
    models = small_cnn(backend, **VARIANTS[name]), small_cnn(backend, **VARIANTS[name])
    optimizer = nn.SGD(lr=0.01, weight_decay=0.01)
    data = mnist.x_train[:4], mnist.t_train[:4]
    assert_few_steps_match_eager(models, data, optimizer, batch_size=1)


@pytest.mark.parametrize("name", VARIANTS)
def test_persistent_cnn_needs_no_other_kernel(
    emulated: EmulatedBackend, mnist: Dataset, name: str
) -> None:
    trainer = Trainer(small_cnn(emulated, **VARIANTS[name]), nn.SGD(), batch_size=1)
    assert kernels_launched_by_step(trainer, mnist, images=4) == ["order", "persistent_cnn"]


def test_persistent_cnn_accepts_activations_and_float_images(
    emulated: EmulatedBackend, mnist: Dataset
) -> None:
    models = small_cnn(emulated, layers.Tanh()), small_cnn(emulated, layers.Tanh())
    data = mnist.x_train[:4] / np.float32(255), mnist.t_train[:4]
    assert_few_steps_match_eager(models, data, nn.SGD(lr=0.01), batch_size=1)


@pytest.mark.parametrize("order", ThreadOrder)
def test_thread_order_and_chunk_length_do_not_change_a_bit(
    mnist: Dataset, order: ThreadOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for device, chunk_steps in ((Emulator(), 1024), (Emulator(order, seed=2), 2)):
        monkeypatch.setattr(cupy_workspace, "MAX_STEPS_PER_CHUNK", chunk_steps)
        model = create_model("cnn", backend=EmulatedBackend(device))
        trainer = Trainer(model, "sgd", lr=0.01, batch_size=1)
        history = trainer.fit(mnist.x_train[:5], mnist.t_train[:5], epochs=2)
        results.append([history.losses, *model.state_dict().values()])
    assert_same_bits(results[0], results[1])


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {"batch_size": 2}),
        ({}, {"optimizer": nn.Adam()}),
        ({"bias": True}, {}),
        ({"padding": 1}, {}),
        ({"filters": 17}, {}),
        ({"filters": 13}, {}),  # the linear layer does not fit the registers
        ({"kernel_size": 6}, {}),
    ],
)
def test_unsupported_settings_use_graph_steps(
    emulated: EmulatedBackend, mnist: Dataset, changes: Any, options: Any
) -> None:
    settings = {"optimizer": nn.SGD(), "batch_size": 1, **options}
    trainer = Trainer(small_cnn(emulated, **changes), **settings)
    launched = set(kernels_launched_by_step(trainer, mnist, images=4))
    assert "wgrad_update" in launched
    assert "persistent_cnn" not in launched


def test_all_steps_can_train_on_the_same_image(emulated: EmulatedBackend, mnist: Dataset) -> None:
    losses_of = []
    for compiled in (True, False):
        model = create_model("cnn", backend=emulated)
        trainer = Trainer(model, "sgd", lr=0.1, sampling="full", compiled=compiled)
        history = trainer.fit(mnist.x_train[:1], mnist.t_train[:1], iterations=5)
        losses_of.append(history.losses)
    assert_close(losses_of[0], np.array(losses_of[1]), dtype="float32", terms=1352, steps=5)
