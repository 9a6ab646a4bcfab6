"""Steps of a convolution and a linear layer in one launch."""

from typing import Any

import pytest

from backends.cupy import loader
from backends.cupy.launch import fused_shallow_cnn
from benchmarks.gpu.bench_kernels import fused_shallow_cnn as benchmark
from benchmarks.gpu.bench_kernels.gpu import Gpu
from mnist_accel import nn
from mnist_accel.data import Dataset
from mnist_accel.nn import layers, losses
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.network import Network
from mnist_accel.training.trainer import Trainer
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import Emulator, ThreadOrder
from tests.support.emulated_backend import EmulatedBackend
from tests.support.gpu_training import (
    assert_few_steps_match_eager,
    centers,
    kernels_launched_by_step,
    small_cnn,
    twin_networks,
)

pytestmark = pytest.mark.emulated
L = layers


def stack_of(filters: int = 8) -> list[L.Layer]:
    convolution = L.Conv2d(filters, 3, bias=False, uniform=True)
    return [convolution, L.ReLU(), L.MaxPool2d(2, ties="all"), L.Flatten(), L.Linear(10)]


# ------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("order", ThreadOrder)
def test_training_matches_eager_training_in_every_thread_order(
    mnist: Dataset, order: ThreadOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two blocks, each with 4 images; in the last batch, the second one has no images."""
    monkeypatch.setattr(fused_shallow_cnn, "TARGET_BLOCKS", 1)
    backend, loss = EmulatedBackend(Emulator(order, seed=4)), losses.SoftmaxCrossEntropy(l2=0.1)
    models = twin_networks(stack_of(), (1, 12, 12), backend, loss=loss, dtype="float32")
    data = centers(mnist, 10, side=12)
    assert_few_steps_match_eager(models, data, nn.Adam(eps=1e-3), batch_size=7)
    launched = backend.emulator.launched
    assert {"fused_shallow_cnn", "penalty", "wgrad_update"} < set(launched)
    assert "fused_classifier" not in launched


# ------------------------------------------------------------------------------- naive kernels


def network(stack: list[L.Layer], loss: losses.Loss, *sides: int) -> Network:
    inputs = Pixels((1, *sides), shift=-0.5)
    return Network(stack, loss, input=inputs, backend="numpy")


@pytest.mark.parametrize("order", ThreadOrder)
@pytest.mark.parametrize(
    ("loss", "activation", "size", "ties", "images"),
    [
        (losses.SoftmaxCrossEntropy(), L.Tanh(), 3, "first", 7),
        (losses.BinaryCrossEntropy(), L.ReLU(), 2, "all", 6),
    ],
)
def test_results_are_those_of_the_naive_kernels(
    loss: Any, activation: L.Layer, size: int, ties: Any, images: int, order: ThreadOrder
) -> None:
    """Two groups of four filters; the last warp has few cells, and the last block few images."""
    gpu = Gpu(EmulatedCupy(Emulator(order, seed=3)))
    conv = L.Conv2d(8, size, bias=False, uniform=True)
    linear = L.Linear(10, bias=ties == "all")
    stack = [conv, activation, L.MaxPool2d(2, ties=ties), L.Flatten(), linear]
    model = network(stack, loss, 15, 16)
    error, name = benchmark.step(gpu, model, images, images_per_block=4).largest_error(gpu)
    assert error <= 1, name


# --------------------------------------------------------------------------------- planted errors


def is_correct(order: ThreadOrder) -> bool:
    """Return whether the kernel gives the results of the naive kernels."""
    gpu = Gpu(EmulatedCupy(Emulator(order, seed=3)))
    model = network(stack_of(), losses.SoftmaxCrossEntropy(), 14, 14)
    error, _ = benchmark.step(gpu, model, images=6, images_per_block=4).largest_error(gpu)
    return error <= 1


@pytest.mark.parametrize(
    "missing",
    [
        "",
        "__syncthreads();  // pixels",
        "__syncwarp();  // all elements",
        "__syncwarp();  // all lanes",
        "__syncthreads();  // the sums of all warps are in place\n  for",
        "__syncthreads();  // the sums of all warps are in place\n\n",
        "__syncthreads();  // the gradients",
        "image < count ? result.dlogit",
    ],
)
def test_missing_barriers_are_detected(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, code = loader.source, loader.source("fused_shallow_cnn")
    if missing:
        assert code.count(missing) == 1
        kept = "".join(("; //", *missing.partition("\n")[1:]))
        code = code.replace(missing, "true ? result.dlogit" if "?" in missing else kept)
    monkeypatch.setattr(
        loader, "source", lambda file: code if file == "fused_shallow_cnn" else source(file)
    )
    assert all(is_correct(order) for order in ThreadOrder) == (not missing)


# -------------------------------------------------------------------------------------- selection


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"filters": 4, "ties": "first"}, True),
        ({"kernel_size": 2}, True),
        ({"dtype": "float64"}, False),  # does not fit into the registers
        ({"filters": 16}, False),
        ({"kernel_size": 5}, False),
        ({"bias": True}, False),
        ({"padding": 1}, False),
    ],
)
def test_one_launch_computes_small_networks(
    mnist: Dataset, changes: dict[str, Any], expected: bool
) -> None:
    trainer = Trainer(small_cnn(EmulatedBackend(), **changes), "adam", batch_size=2)
    program = trainer.model.training_program(nn.Adam())
    assert (fused_shallow_cnn.fused_shallow_cnn_for(program, 2) is not None) == expected
    if changes in ({}, {"bias": True}):
        launched = kernels_launched_by_step(trainer, mnist, images=2)
        assert ("fused_shallow_cnn" in launched) == expected
        assert ("conv2d" in launched) == (not expected)


@pytest.mark.parametrize(
    ("batch_size", "images_per_block", "blocks"),
    [(1, 1, 1), (128, 1, 128), (129, 2, 65), (512, 4, 128), (4096, 4, 1024)],
)
def test_large_batches_have_several_images_per_block(
    batch_size: int, images_per_block: int, blocks: int
) -> None:
    program = small_cnn(EmulatedBackend()).training_program(nn.SGD())
    cnn = fused_shallow_cnn.fused_shallow_cnn_for(program, batch_size)
    assert cnn is not None
    assert (cnn.images_per_block, cnn.blocks) == (images_per_block, blocks)
