"""`persistent_mlp`: one launch of 8 blocks trains two linear layers for all steps of a chunk."""

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
from tests.support.closeness import assert_same_bits
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import Emulator, RawKernel, ThreadOrder
from tests.support.emulated_backend import EmulatedBackend
from tests.support.gpu_training import (
    assert_few_steps_match_eager,
    emulated_and_cupy,
    kernels_launched_by_step,
    small_mlp,
)

pytestmark = pytest.mark.emulated
L = layers


@emulated_and_cupy
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": losses.SoftmaxCrossEntropy(), "activation": L.ReLU()},
        {"loss": losses.BinaryCrossEntropy(), "activation": L.Tanh()},
        {"hidden": 50, "dtype": "float32"},
        {"inputs": 30},  # the last block has fewer inputs
        {"inputs": 9},  # some blocks have no inputs
    ],
    ids=str,
)
def test_persistent_mlp_matches_eager_training(
    backend: Backend, mnist: Dataset, options: dict[str, Any]
) -> None:
    models = small_mlp(backend, **options), small_mlp(backend, **options)
    images = mnist.x_train[:13]
    if "inputs" in options:
        pixels = images.reshape(13, 784)[:, 300:] / np.float64(255)
        images = np.ascontiguousarray(pixels[:, : options["inputs"]])
    labels = mnist.t_train[:13]
    optimizer = nn.SGD(lr=0.5, weight_decay=0.01)
    assert_few_steps_match_eager(models, (images, labels), optimizer, batch_size=5)
    if isinstance(backend, EmulatedBackend):
        backend.emulator.launched.clear()
        Trainer(models[0], "sgd", batch_size=16).fit(images, labels, iterations=1)
        assert backend.emulator.launched == ["order", "persistent_mlp"]


@pytest.mark.parametrize("order", ThreadOrder)
@pytest.mark.parametrize("capability", ["80", "90"])
def test_grid_and_cluster_give_the_same_bits_in_every_thread_order(
    mnist: Dataset, capability: str, order: ThreadOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare with a grid of blocks, the default thread order and one chunk for all steps."""
    results = []
    grid = Emulator(), "80", 1024
    compared = Emulator(order, seed=2), capability, 2
    for emulator, backend_capability, chunk_steps in (grid, compared):
        monkeypatch.setattr(cupy_workspace, "MAX_STEPS_PER_CHUNK", chunk_steps)
        backend = EmulatedBackend(emulator, capability=backend_capability)
        model = create_model("backprop", backend=backend)
        trainer = Trainer(model, "sgd", lr=3.0, batch_size=10)
        history = trainer.fit(mnist.x_train[:25], mnist.t_train[:25], epochs=2)
        results.append([history.losses, *model.state_dict().values()])
    assert_same_bits(results[0], results[1])


@pytest.mark.parametrize(
    ("capability", "is_cluster"),
    [("70", False), ("89", False), ("90", True), ("100", True), ("120", True)],
)
def test_blocks_form_a_cluster_from_sm_90_on(
    mnist: Dataset, capability: str, is_cluster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    launches = []

    def record(kernel: RawKernel, *args: Any, concurrent_blocks: int) -> None:
        launches.append((kernel.name, kernel.is_cluster, concurrent_blocks))

    monkeypatch.setattr(RawKernel, "_launch", record)
    monkeypatch.setattr(EmulatedCupy, "empty", EmulatedCupy.zeros)
    model = create_model("backprop", backend=EmulatedBackend(capability=capability))
    Trainer(model, "sgd", batch_size=10).fit(mnist.x_train[:10], mnist.t_train[:10], iterations=1)
    assert launches == [
        ("order", False, 1),
        ("persistent_mlp", True, 1) if is_cluster else ("persistent_mlp", False, 8),
    ]


@pytest.mark.parametrize(("multiprocessors", "is_persistent"), [(7, False), (8, True)])
def test_persistent_mlp_needs_one_multiprocessor_per_block(
    mnist: Dataset, multiprocessors: int, is_persistent: bool
) -> None:
    """With fewer, CuPy would launch a smaller grid, whose blocks would wait forever."""
    backend = EmulatedBackend(multiprocessors=multiprocessors)
    trainer = Trainer(small_mlp(backend), "sgd", batch_size=4)
    launched = kernels_launched_by_step(trainer, mnist, images=4)
    assert ("persistent_mlp" in launched) == is_persistent
    assert ("wgrad_update" in launched) == (not is_persistent)


@pytest.mark.parametrize(
    ("changes", "options", "kernel"),
    [
        ({}, {"batch_size": 17}, "fused_mlp"),
        ({}, {"optimizer": nn.SGD(momentum=0.9)}, "fused_mlp"),
        ({"bias": False}, {}, "fused_mlp"),
        ({"hidden": 200}, {}, "fused_classifier"),  # does not fit into shared memory
    ],
)
def test_unsupported_settings_use_graph_steps(
    emulated: EmulatedBackend, mnist: Dataset, changes: Any, options: Any, kernel: str
) -> None:
    settings = {"optimizer": nn.SGD(), "batch_size": 4, **options}
    trainer = Trainer(small_mlp(emulated, **changes), **settings)
    launched = set(kernels_launched_by_step(trainer, mnist, images=17))
    assert {kernel, "wgrad_update"} <= launched
    assert "persistent_mlp" not in launched
