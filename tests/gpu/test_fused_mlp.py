"""Steps of two linear layers in one launch by thread block clusters."""

from typing import Any

import numpy as np
import pytest

from backends.cupy import loader
from backends.cupy.launch import fused_mlp, tiles
from benchmarks.gpu.bench_kernels import fused_mlp as benchmark
from benchmarks.gpu.bench_kernels.gpu import Gpu
from mnist_accel import nn
from mnist_accel.data import Dataset
from mnist_accel.nn import layers, losses
from mnist_accel.nn.inputs import Features
from mnist_accel.nn.network import Network
from mnist_accel.training.trainer import Trainer
from tests.gpu.test_members import train_together
from tests.support.closeness import assert_close, assert_same_bits
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import EmulationError, Emulator, ThreadOrder
from tests.support.emulated_backend import EmulatedBackend
from tests.support.gpu_training import (
    assert_few_steps_match_eager,
    centers,
    kernels_launched_by_step,
    small_mlp,
    twin_networks,
)

pytestmark = pytest.mark.emulated
L = layers
HIDDEN, CLASSES = 13, 10


# ------------------------------------------------------------------------------------- training


def small_network(backend: EmulatedBackend, **options: Any) -> tuple[Network, Network]:
    stack = [L.Linear(HIDDEN), L.ReLU(), L.Linear(CLASSES)]
    return twin_networks(stack, (64,), backend, **options)


@pytest.mark.parametrize("order", ThreadOrder)
def test_training_matches_eager_training_in_every_thread_order(
    mnist: Dataset, order: ThreadOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clusters, each with 16 images; in the last batch, the second one has no images."""
    monkeypatch.setattr(fused_mlp, "TARGET_CLUSTERS", 1)
    backend = EmulatedBackend(Emulator(order, seed=4))
    models = small_network(backend, loss=losses.SoftmaxCrossEntropy(l2=0.1))
    monkeypatch.setattr(fused_mlp, "MAX_IMAGES_PER_BLOCK", 2)
    assert_few_steps_match_eager(models, centers(mnist, 23), nn.Adam(eps=1e-3), batch_size=18)
    launched = set(backend.emulator.launched) - {"update", "loss", "gather_batch"}
    assert launched == {"order", "fused_mlp", "penalty", "wgrad_update"}


def features_trainer(backend: EmulatedBackend, seed: int = 1, lr: float = 0.05) -> Trainer:
    model = Network(
        [L.Linear(HIDDEN), L.Tanh(), L.Linear(CLASSES)],
        losses.SoftmaxCrossEntropy(),
        input=Features(20),
        backend=backend,
        seed=seed,
    )
    return Trainer(model, "sgd", batch_size=19, seed=seed, lr=lr)


def feature_examples(count: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(8)
    features = rng.standard_normal((count, 20)).astype(np.float32)
    return features, rng.integers(CLASSES, size=count)


def test_features_with_weights_match_eager_training() -> None:
    backend, results = EmulatedBackend(), []
    examples, weights = feature_examples(30), np.random.default_rng(9).uniform(0, 2, size=30)
    for compiled in (True, False):
        trainer = features_trainer(backend)
        if not compiled:
            trainer = Trainer(trainer.model, "sgd", batch_size=19, seed=1, lr=0.05, compiled=False)
        backend.emulator.launched.clear()
        history = trainer.fit(*examples, iterations=4, sample_weight=weights)
        assert ("fused_mlp" in backend.emulator.launched) == compiled
        results.append([history.losses, *trainer.model.state_dict().values()])
    for got, expected in zip(*results, strict=True):
        assert_close(got, np.asarray(expected), dtype="float32", terms=400, steps=4)


@pytest.mark.parametrize("order", ThreadOrder)
def test_members_equal_the_single_training_in_every_thread_order(order: ThreadOrder) -> None:
    """Three members with different seeds, learning rates and numbers of steps."""
    backend = EmulatedBackend(Emulator(order, seed=6))
    together = [features_trainer(backend, seed=i, lr=0.01 * i) for i in (1, 2, 3)]
    steps, examples = [2, 1, 3], feature_examples(30)
    train_together(together, steps, *examples)
    for number, count in enumerate(steps, 1):
        alone = features_trainer(EmulatedBackend(), seed=number, lr=0.01 * number)
        alone.fit(*examples, iterations=count)
        got, expected = (t.model.state_dict() for t in (together[number - 1], alone))
        assert_same_bits(list(got.values()), list(expected.values()))


# --------------------------------------------------------------------------------- planted errors

START = (
    "  __cluster_barrier_arrive_relaxed();",
    "  __cluster_barrier_wait();  // all blocks",
)
EXCHANGE = ("  mbarrier_wait(shared.received, 0);",)


def is_correct(order: ThreadOrder) -> bool:
    """Return whether the kernel gives the results of the naive kernels."""
    gpu = Gpu(EmulatedCupy(Emulator(order, seed=3)))
    model = small_mlp(EmulatedBackend(), inputs=61, hidden=HIDDEN, dtype="float32")
    try:
        error, _ = benchmark.step(gpu, model, images=9).largest_error(gpu)
    except EmulationError:
        return False
    return error <= 1


@pytest.mark.parametrize(
    "barriers",
    [
        pytest.param((), id="none"),
        pytest.param(START, id="all blocks have initialized their barriers"),
        pytest.param(("  mbarrier_init_fence();",), id="initialization is released"),
        pytest.param(EXCHANGE, id="all sums have been received"),
        pytest.param(("  __syncthreads();  // all threads have read",), id="factors are read"),
    ],
)
def test_missing_barriers_are_detected(
    barriers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = loader.source
    code = source("fused_mlp")
    for barrier in barriers:
        assert code.count(barrier) == 1
        code = code.replace(barrier, "; //")
    monkeypatch.setattr(
        loader, "source", lambda file: code if file == "fused_mlp" else source(file)
    )
    assert all(is_correct(order) for order in ThreadOrder) == (not barriers)


# -------------------------------------------------------------------------------------- selection


@pytest.mark.parametrize(
    ("capability", "changes", "expected"),
    [
        (90, {}, "fused_mlp"),
        (120, {}, "fused_mlp"),
        (89, {}, "linear"),  # no clusters
        (90, {"hidden": 200}, "linear"),  # does not fit into shared memory
        (90, {"bias": False}, "fused_mlp"),
    ],
)
def test_clusters_compute_networks_that_fit(
    mnist: Dataset, capability: int, changes: dict[str, Any], expected: str
) -> None:
    backend = EmulatedBackend(capability=str(capability))
    trainer = Trainer(small_mlp(backend, dtype="float32", **changes), batch_size=17)
    launched = kernels_launched_by_step(trainer, mnist, images=17)
    others = {"fused_mlp", "linear"} - {expected}
    assert expected in launched
    assert not others & set(launched)


def test_large_tiles_compute_very_large_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    program = small_mlp(EmulatedBackend(), dtype="float32", hidden=40).training_program(nn.SGD())
    assert fused_mlp.fused_mlp_for(program, 512, capability=90) is not None
    monkeypatch.setattr(tiles, "MIN_LARGE_TILES", 2)
    assert fused_mlp.fused_mlp_for(program, 512, capability=90) is None


def test_wide_layers_need_a_thread_per_hidden_unit() -> None:
    for hidden in (256, 257):
        network = small_mlp(EmulatedBackend(), dtype="float32", inputs=20, hidden=hidden)
        mlp = fused_mlp.fused_mlp_for(network.training_program(nn.SGD()), 17, capability=90)
        assert (mlp is None) == (hidden > fused_mlp.THREADS)


@pytest.mark.parametrize(
    ("hidden", "batch_size", "images_per_block"),
    [(50, 17, 1), (50, 128, 1), (50, 129, 2), (50, 512, 4), (50, 5000, 4), (64, 512, 2)],
)
def test_large_batches_have_several_images_per_block(
    hidden: int, batch_size: int, images_per_block: int
) -> None:
    network = small_mlp(EmulatedBackend(), dtype="float32", hidden=hidden)
    mlp = fused_mlp.fused_mlp_for(network.training_program(nn.SGD()), batch_size, capability=90)
    assert mlp is not None
    assert mlp.images_per_block == images_per_block
