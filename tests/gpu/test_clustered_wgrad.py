"""Gradients and updates of linear layers by thread block clusters."""

from dataclasses import replace
from typing import Any

import pytest

from backends import create_optimizer
from backends.cupy import loader
from backends.cupy.launch import clustered_wgrad, fused_mlp
from benchmarks.gpu.bench_kernels.gpu import Gpu
from benchmarks.gpu.bench_kernels.wgrad_update import gradients_and_update
from mnist_accel import nn
from mnist_accel.data import Dataset
from mnist_accel.nn import layers, losses
from mnist_accel.nn.network import Network
from tests.gpu.test_fused_mlp import feature_examples, features_trainer
from tests.gpu.test_members import train_together
from tests.support.closeness import assert_same_bits
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import EmulationError, Emulator, ThreadOrder
from tests.support.emulated_backend import EmulatedBackend
from tests.support.gpu_training import (
    assert_few_steps_match_eager,
    centers,
    small_mlp,
    twin_networks,
)

pytestmark = pytest.mark.emulated
L = layers


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clusters compute the gradients of small batches, too, some images at a time."""
    monkeypatch.setattr(clustered_wgrad, "MIN_IMAGES", 1)
    monkeypatch.setattr(clustered_wgrad, "IMAGES", 4)


@pytest.mark.parametrize("order", ThreadOrder)
@pytest.mark.usefixtures("small_batches")
def test_training_matches_eager_training_in_every_thread_order(
    mnist: Dataset, order: ThreadOrder
) -> None:
    """The last batch has 5 images, which the blocks of a tile divide into 1, 1, 1 and 2."""
    backend = EmulatedBackend(Emulator(order, seed=4))
    stack = [L.Linear(13), L.ReLU(), L.Linear(10)]
    loss = losses.SoftmaxCrossEntropy(l2=0.1)
    models = twin_networks(stack, (64,), backend, loss=loss, dtype="float32")
    assert_few_steps_match_eager(models, centers(mnist, 23), nn.Adam(eps=1e-3), batch_size=18)
    launched = set(backend.emulator.launched) - {"update", "loss", "gather_batch"}
    assert launched == {"order", "fused_mlp", "penalty", "clustered_wgrad"}


@pytest.mark.parametrize("order", ThreadOrder)
@pytest.mark.usefixtures("small_batches")
def test_members_equal_the_single_training_in_every_thread_order(order: ThreadOrder) -> None:
    """Three members with different seeds, learning rates and numbers of steps."""
    backend = EmulatedBackend(Emulator(order, seed=6))
    together = [features_trainer(backend, seed=i, lr=0.01 * i) for i in (1, 2, 3)]
    steps, examples = [2, 1, 3], feature_examples(30)
    train_together(together, steps, *examples)
    assert "clustered_wgrad" in backend.emulator.launched
    for number, count in enumerate(steps, 1):
        alone = features_trainer(EmulatedBackend(), seed=number, lr=0.01 * number)
        alone.fit(*examples, iterations=count)
        got, expected = (t.model.state_dict() for t in (together[number - 1], alone))
        assert_same_bits(list(got.values()), list(expected.values()))


def difference(order: ThreadOrder, *, images: int = 9, **sizes: Any) -> float:
    """Return the largest difference from the naive kernels, as a multiple of the accepted one."""
    gpu = Gpu(EmulatedCupy(Emulator(order, seed=3)))
    sizes = {"inputs": 61, "hidden": 13, **sizes}
    model: Network = small_mlp(EmulatedBackend(), dtype="float32", **sizes)
    rule = create_optimizer("momentum")
    comparison = gradients_and_update(gpu, model, rule, images, is_clustered=True)
    return comparison.largest_error(gpu)[0]


@pytest.mark.parametrize("order", ThreadOrder)
def test_every_thread_order_equals_the_naive_kernels(order: ThreadOrder) -> None:
    assert difference(order) <= 1


@pytest.mark.parametrize(
    "sizes", [{"images": 1}, {"images": 300}, {"inputs": 27}, {"inputs": 28}, {"hidden": 50}]
)
def test_every_size_equals_the_naive_kernels(sizes: dict[str, int]) -> None:
    assert difference(ThreadOrder.RANDOM, **sizes) <= 1


SYNCS = {
    "none": (),
    "factors are stored": ("    __syncthreads();\n    if (first",),
    "factors are read": ("    __syncthreads();  // all threads have read",),
    "initialized": ("  __cluster_barrier_wait();  // all blocks",),
    "initialization is released": ("    mbarrier_init_fence();",),
    "all sums have been received": ("  mbarrier_wait(shared.arrived, 0);",),
}


@pytest.mark.parametrize("missing", SYNCS)
def test_missing_barriers_are_detected(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = loader.source
    code = source("clustered_wgrad")
    for barrier in SYNCS[missing]:
        assert code.count(barrier) == 1
        code = code.replace(barrier, "; //" if "\n" not in barrier else "    if (first")
    monkeypatch.setattr(
        loader, "source", lambda file: code if file == "clustered_wgrad" else source(file)
    )
    monkeypatch.setattr(clustered_wgrad, "IMAGES", 4)

    def is_correct(order: ThreadOrder) -> bool:
        try:
            return difference(order, images=40) <= 1
        except EmulationError:
            return False

    assert all(is_correct(order) for order in ThreadOrder) == (missing == "none")


# -------------------------------------------------------------------------------------- selection


@pytest.mark.parametrize(
    ("hidden", "batch_size", "is_clustered"),
    [(50, 255, False), (50, 256, True), (50, 512, True), (64, 512, True), (50, 60_000, False)],
)
def test_clusters_compute_the_gradients_of_batches_with_many_images(
    hidden: int, batch_size: int, is_clustered: bool
) -> None:
    network = small_mlp(EmulatedBackend(), dtype="float32", hidden=hidden)
    program = network.training_program(nn.SGD())
    mlp = fused_mlp.fused_mlp_for(program, batch_size, capability=90)
    assert clustered_wgrad.can_compute(mlp, batch_size) == is_clustered
    if mlp is not None:
        double = replace(mlp, dtype="float64", hidden=40)
        assert not clustered_wgrad.can_compute(double, 512)
