"""The fast kernels compute the same as the naive ones in `backends/cupy/kernels/naive/`.

The comparisons are those of `benchmarks/gpu/bench_kernels`, at small sizes.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from backends import SGD
from backends.cupy.launch import fused_classifier, tiles, wgrad_update
from backends.cupy.launch.conv_shape import ConvShape
from backends.cupy.launch.losses import LOSSES
from benchmarks.gpu.bench_kernels import (
    convolution,
    fused_cnn,
    fused_mlp,
    fused_shallow_cnn,
    linear,
    losses,
    persistent_cnn,
    persistent_mlp,
    pooling,
    recipes,
    tensor_cores,
)
from benchmarks.gpu.bench_kernels import fused_classifier as classifiers
from benchmarks.gpu.bench_kernels import wgrad_update as gradients
from benchmarks.gpu.bench_kernels.comparison import Comparison
from benchmarks.gpu.bench_kernels.gpu import Gpu
from mnist_accel import nn
from mnist_accel.nn import layers
from mnist_accel.nn import losses as losses_of_networks
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.network import Network
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import Emulator

pytestmark = pytest.mark.emulated
L = layers
ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "backends" / "cupy" / "kernels"
FAMILIES = (
    *(classifiers, convolution, fused_cnn, fused_mlp, fused_shallow_cnn, gradients, linear),
    *(losses, persistent_cnn, persistent_mlp, pooling, tensor_cores),
)
# Large tiles are used for float32 only.
with_both_tiles = pytest.mark.parametrize("dtype", ["float64", "float32"])
CONVOLUTIONS = [
    ConvShape(channels=2, height=7, width=6, filters=4, kernel_size=3, padding=1, pool=2),
    ConvShape(channels=3, height=6, width=8, filters=4, kernel_size=2, padding=0),
    ConvShape(channels=1, height=9, width=9, filters=2, kernel_size=7, padding=2, pool=2),
]


def test_every_kernel_file_has_a_comparison() -> None:
    """The threads of the other kernels compute one result each by a formula, as a naive kernel."""
    named = set(re.findall(r"\w+\.cu\b", " ".join(str(module.__doc__) for module in FAMILIES)))
    files = {path.name for path in FOLDER.rglob("*.cu") if path.parent.name != "naive"}
    assert files - named == {"activations.cu", "batches.cu", "order.cu", "updates.cu"}
    assert named <= files
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    section = page.partition("\n## Naive kernels\n")[2].partition("\n## ")[0]
    assert files <= set(re.findall(r"\w+\.cu\b", section))


def assert_same(gpu: Gpu, comparison: Comparison) -> None:
    error, name = comparison.largest_error(gpu)
    assert error <= 1, f"{comparison.kernel}: {name} differs by {error:.3g} tolerances"


def network(
    stack: list[L.Layer], input_shape: tuple[int, ...], dtype: str, loss: Any = None
) -> Network:
    return Network(
        stack,
        loss or losses_of_networks.Quadratic(),
        input=Pixels(input_shape, shift=-0.5),
        backend="numpy",
        dtype=dtype,
    )


@with_both_tiles
@pytest.mark.parametrize("sizes", [(7, 50, 13), (34, 70, 65)])
def test_linear_layers(tiled_gpu: Gpu, sizes: tuple[int, int, int]) -> None:
    for is_first in (True, False):
        assert_same(tiled_gpu, linear.forward(tiled_gpu, *sizes, "sigmoid", is_first=is_first))
    assert_same(tiled_gpu, linear.backward_x(tiled_gpu, *sizes, "sigmoid"))


@pytest.mark.parametrize("sizes", [(7, 12, 5), (165, 164, 70)])
def test_tensor_cores(sizes: tuple[int, int, int]) -> None:
    gpu = Gpu(EmulatedCupy(Emulator()))
    assert_same(gpu, tensor_cores.first_layer(gpu, *sizes, "identity"))
    assert_same(gpu, tensor_cores.weight_gradient(gpu, *sizes))


@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_convolutions(emulated_gpu: Gpu, shape: ConvShape) -> None:
    for ties in ("first", "all"):
        for is_first in (True, False):
            comparison = convolution.forward(emulated_gpu, 3, shape, is_first=is_first, ties=ties)
            assert_same(emulated_gpu, comparison)
    assert_same(emulated_gpu, convolution.backward_x(emulated_gpu, 3, shape))


@pytest.mark.parametrize(
    "shape",
    [
        CONVOLUTIONS[1],
        ConvShape(channels=2, height=4, width=5, filters=8, kernel_size=1, padding=1),
    ],
    ids=str,
)
def test_eager_weight_gradient_of_a_convolution(
    emulated_gpu: Gpu, shape: ConvShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wgrad_update, "MIN_TERMS", 50)  # divides the sums among blocks
    assert_same(emulated_gpu, convolution.backward_weight(emulated_gpu, 3, shape))


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2)])
def test_pooling(emulated_gpu: Gpu, size: int, stride: int) -> None:
    x, y, shape = pooling.arrays_of(emulated_gpu, (2, 3, 7, 8), size, stride)
    for ties in ("first", "all"):
        assert_same(emulated_gpu, pooling.maximum(emulated_gpu, x, y, shape, ties))
    assert_same(emulated_gpu, pooling.maximum_backward(emulated_gpu, x, y, shape))
    assert_same(emulated_gpu, pooling.mean(emulated_gpu, x, y, shape))
    assert_same(emulated_gpu, pooling.mean_backward(emulated_gpu, x, y, shape))


@pytest.mark.parametrize("kind", LOSSES)
def test_losses(emulated_gpu: Gpu, kind: str) -> None:
    assert_same(emulated_gpu, losses.loss(emulated_gpu, kind, 5, 33))
    if kind != "squared_error":
        assert_same(emulated_gpu, losses.loss(emulated_gpu, kind, 5, 7, is_weighted=True))
        assert_same(emulated_gpu, losses.loss_outputs(emulated_gpu, kind, 5, 33))


def test_l2_penalty(emulated_gpu: Gpu) -> None:
    assert_same(emulated_gpu, losses.l2_penalty(emulated_gpu, 1500, 40))


@with_both_tiles
@pytest.mark.parametrize("images", [5, 33])
@pytest.mark.parametrize(
    "loss",
    [
        losses_of_networks.SoftmaxCrossEntropy(),
        losses_of_networks.BinaryCrossEntropy(),
        losses_of_networks.Quadratic(),
    ],
    ids=lambda loss: loss.kind,
)
def test_fused_classifier(
    tiled_gpu: Gpu, loss: Any, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warps compute the three linear layers in float64, tiles compute them in float32."""
    monkeypatch.setattr(fused_classifier, "TARGET_BLOCKS", 2)
    stack = [L.Linear(30), L.ReLU(), L.Linear(70), L.Tanh(), L.Linear(40, bias=False), L.Sigmoid()]
    model = network([*stack, L.Linear(10)], (9,), tiled_gpu.dtype, loss)
    assert_same(tiled_gpu, classifiers.classifier(tiled_gpu, model, images))


def test_fused_classifier_after_a_convolution(emulated_gpu: Gpu) -> None:
    stack = [L.Conv2d(2, 3, padding=1), L.Tanh(), L.Conv2d(3, 3, padding=1), L.MaxPool2d()]
    model = network([*stack, L.Flatten(), L.Linear(10)], (1, 7, 6), "float64")
    assert_same(emulated_gpu, classifiers.classifier(emulated_gpu, model, 3))


@pytest.mark.parametrize(
    ("loss", "activation", "images_per_block", "images", "dtype"),
    [
        (losses_of_networks.SoftmaxCrossEntropy(), L.ReLU(), 1, 19, "float64"),
        (losses_of_networks.BinaryCrossEntropy(), L.Tanh(), 2, 16, "float32"),
        (losses_of_networks.Quadratic(), L.Sigmoid(), 4, 41, "float64"),
    ],
)
def test_two_layers_by_clusters(
    loss: Any, activation: L.Layer, images_per_block: int, images: int, dtype: str
) -> None:
    """The last block has fewer inputs; the last cluster has few images, or none is left for it."""
    gpu = Gpu(EmulatedCupy(Emulator()), dtype)
    second = L.Linear(10, bias=loss.kind != "quadratic")
    model = network([L.Linear(13), activation, second], (61,), dtype, loss)
    assert_same(gpu, fused_mlp.step(gpu, model, images, images_per_block=images_per_block))


@pytest.mark.parametrize(
    ("dtype", "units", "tile"),
    [
        ("float64", (40, 33), tiles.SMALL),
        ("float64", (10,), tiles.SMALL),
        ("float32", (40, 33), tiles.LARGE),
    ],
    ids=["small", "narrow", "large"],
)
@pytest.mark.parametrize("min_terms", [2048, 1])
def test_weight_gradients_and_update(
    tiled_gpu: Gpu,
    units: tuple[int, ...],
    tile: tiles.Tile,
    min_terms: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A convolution and linear layers; with few terms per block, they use split-K."""
    monkeypatch.setattr(wgrad_update, "MIN_TERMS", min_terms)
    stack = [L.Conv2d(4, 3, padding=1), L.ReLU(), L.MaxPool2d(), L.Flatten(), *map(L.Linear, units)]
    model, rule = network(stack, (1, 7, 6), tiled_gpu.dtype), SGD(weight_decay=0.01)
    assert recipes.plan_of(model.training_program(rule)).tile(3) == tile
    assert_same(tiled_gpu, gradients.gradients_and_update(tiled_gpu, model, rule, 3))


def test_weight_gradients_of_gathered_images_and_update_by_adam(emulated_gpu: Gpu) -> None:
    model = network([L.Linear(5), L.ReLU(), L.Linear(4)], (40,), "float64")
    assert_same(emulated_gpu, gradients.gradients_and_update(emulated_gpu, model, nn.Adam(), 9))


@pytest.mark.parametrize("ties", ["first", "all"])
@pytest.mark.parametrize(
    ("shape", "filters", "size"),
    [((1, 9, 8), 3, 3), ((1, 8, 11), 9, 2)],
    ids=["3×3", "odd width, 2×2"],
)
def test_persistent_cnn(
    emulated_gpu: Gpu, shape: tuple[int, ...], filters: int, size: int, ties: Any
) -> None:
    conv = L.Conv2d(filters, size, bias=False, uniform=True)
    stack = [conv, L.Tanh(), L.MaxPool2d(2, ties=ties), L.Flatten(), L.Linear(4)]
    model = network(stack, shape, "float64")
    assert_same(emulated_gpu, persistent_cnn.training(emulated_gpu, model, steps=6))


@pytest.mark.parametrize("capability", ["80", "90"], ids=["grid", "cluster"])
def test_persistent_mlp(capability: str) -> None:
    gpu = Gpu(EmulatedCupy(Emulator(), capability=capability), "float64")
    model = network([L.Linear(5), L.Sigmoid(), L.Linear(4)], (19,), "float64")
    assert_same(gpu, persistent_mlp.training(gpu, model, images=6, steps=3))
