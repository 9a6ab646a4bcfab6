"""The first layer by tensor cores: within its error bound, and only where it is allowed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from backends.cupy import loader
from backends.cupy.launch import tensor_linear, tiles, wgrad_update
from backends.cupy.launch.wgrad_update import WgradLayer
from benchmarks.gpu.bench_kernels.gpu import Gpu, rows_of
from mnist_accel import nn
from mnist_accel.data import Dataset
from mnist_accel.nn import layers, losses
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.network import Network
from mnist_accel.training.trainer import Trainer
from tests.support.closeness import assert_same_bits
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import Emulator
from tests.support.emulated_backend import EmulatedBackend
from tests.support.gpu_training import assert_few_steps_match_eager, centers, twin_networks

pytestmark = pytest.mark.emulated
L = layers
ROUNDING = 2.0**-24  # largest relative error of an addition or multiplication in float32


def error_bound(terms: int) -> float:
    """Return the bound of docs/decisions/0035-tensor-cores.md, relative to Σ |x w|."""
    return ROUNDING * (80 + -(-terms // 32))


@dataclass
class Layer:
    """A first layer with random positive numbers, for which truncated sums are least accurate."""

    images: int
    inputs: int
    outputs: int
    has_bias: bool = True

    def __post_init__(self) -> None:
        images, inputs, outputs = self.images, self.inputs, self.outputs
        self.gpu = Gpu(EmulatedCupy(Emulator()))
        self.batch = self.gpu.batch(images, inputs)
        pixels = self.batch.dataset.images
        pixels[...] = self.gpu.integers(0, 256, *pixels.shape)
        self.x = pixels[rows_of(self.batch)] / np.float32(255)
        self.launcher = self.gpu.launcher_for(self.batch)
        self.weight, self.dy = self._positive(inputs, outputs), self._positive(images, outputs)
        self.bias = self._positive(outputs) if self.has_bias else None

    def _positive(self, *shape: int) -> Any:
        """Return positive numbers of very different sizes."""
        array = self.gpu.random(*shape)
        array[...] = np.exp(3 * array)
        return array

    def forward(self, activation: str = "identity") -> Any:
        y = self.gpu.empty(self.images, self.outputs)
        arguments = self.batch, self.weight, self.bias, y, activation
        tensor_linear.tensor_linear(self.launcher, *arguments)
        return y

    def gradient(self, *, bias_first: bool = False) -> Any:
        """Return the sum of the partial sums as (inputs + 1, outputs), the bias last."""
        split = tensor_linear.split_images(self.inputs, self.outputs, self.images)
        sums = self.gpu.empty(split.splits, split.parameters)
        sums[...] = 0  # elements of a missing bias are not set
        first_weight = 7 + self.outputs * bias_first
        last_bias = 7 + self.inputs * self.outputs
        layer = WgradLayer(
            x=None,
            dy=self.dy,
            mask=None,
            split=split,
            partial_sums=sums,
            tile_counters=None,
            weight=first_weight,
            bias=(7 if bias_first else last_bias) if self.has_bias else -1,
            inputs=self.inputs,
            outputs=self.outputs,
        )
        tensor_linear.tensor_wgrad(self.launcher, layer, self.batch)
        rows = sums.sum(axis=0, dtype=np.float64).reshape(self.inputs + 1, self.outputs)
        return np.roll(rows, -1, axis=0) if bias_first else rows


SIZES = [(7, 12, 5), (165, 164, 70)]  # less than a tile; full and partial tiles of everything


def relative_errors(layer: Layer) -> tuple[float, float]:
    """Return the largest errors of output and gradient, each relative to its bound."""
    x, weight, dy = (np.asarray(a, np.float64) for a in (layer.x, layer.weight, layer.dy))
    x = np.rint(x * 255) / 255
    expected = x @ weight + np.asarray(layer.bias, np.float64)
    output = np.abs(layer.forward() - expected) / expected / error_bound(layer.inputs)
    expected = np.vstack([x.T @ dy, dy.sum(axis=0)])
    gradient = np.abs(layer.gradient() - expected) / expected / error_bound(layer.images)
    return float(output.max()), float(gradient.max())


@pytest.mark.parametrize("sizes", SIZES)
def test_errors_are_within_the_bound_of_a_sum_in_float32(sizes: tuple[int, int, int]) -> None:
    """The emulator truncates every sum, which the bound allows."""
    assert max(relative_errors(Layer(*sizes))) <= 1


def test_position_of_the_bias_does_not_change_a_bit() -> None:
    with_bias = Layer(7, 12, 5)
    gradient = with_bias.gradient()
    assert_same_bits([with_bias.gradient(bias_first=True)], [gradient])
    without = Layer(7, 12, 5, has_bias=False)
    assert_same_bits(without.gradient()[:-1], gradient[:-1])
    assert not without.gradient()[-1].any()


SLOW = pytest.mark.slow
# Which of the two errors a planted error affects.
OUTPUT, GRADIENT, BOTH = slice(0, 1), slice(1, 2), slice(0, 2)


@pytest.mark.parametrize(
    ("right", "wrong", "affected"),
    [
        pytest.param("part = PARTS - 1; part >= 0", "part = PARTS - 2; part >= 0", BOTH, id="pass"),
        pytest.param("x) & 0xffff0000u", "x) & 0xfffe0000u", BOTH, id="split", marks=SLOW),
        pytest.param("words[i][number % 2]", "words[i][1 - number % 2]", OUTPUT, id="rows"),
        pytest.param("(i, pixel, half)", "(i, pixel, 1 - half)", GRADIENT, id="images"),
        pytest.param(
            "{column.pairs[2 * half], column.pairs[2 * half + 1]}",
            "{column.pairs[2 * half + 1], column.pairs[2 * half]}",
            BOTH,
            id="order of terms",
        ),
        pytest.param("right_slot(g, t)", "right_slot(t, g)", BOTH, id="lanes", marks=SLOW),
        pytest.param(
            "row + 16 * m + i / 2", "row + 16 * m + i % 2", BOTH, id="results", marks=SLOW
        ),
        pytest.param(
            "sums[m][n][i] += ", "sums[m][n][i] = ", BOTH, id="only the last terms", marks=SLOW
        ),
    ],
)
def test_planted_errors_exceed_the_bound(
    right: str, wrong: str, affected: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = loader.source
    for file in ("tensor_linear", "tensor_wgrad"):
        assert source(file).count(right) == 1
    monkeypatch.setattr(loader, "source", lambda file: source(file).replace(right, wrong))
    errors = relative_errors(Layer(70, 68, 34))[affected]
    assert not any(error <= 1 for error in errors)  # NaN is an error, too


# ------------------------------------------------------------------------------------- training


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a few images count as a large batch, whose gradients are divided among blocks."""
    monkeypatch.setattr(tiles, "MIN_LARGE_TILES", 2)
    monkeypatch.setattr(tensor_linear, "MIN_IMAGES", 9)
    monkeypatch.setattr(wgrad_update, "MIN_TERMS", 7)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("has_bias", [True, False])
def test_training_matches_eager_training(mnist: Dataset, has_bias: bool) -> None:
    backend = EmulatedBackend()
    stack = [L.Linear(40, bias=has_bias), L.Tanh(), L.Linear(10)]
    loss = losses.SoftmaxCrossEntropy(l2=0.1)
    models = twin_networks(stack, (64,), backend, loss=loss, dtype="float32")
    assert_few_steps_match_eager(models, centers(mnist, 57), nn.SGD(lr=0.05), batch_size=34)
    assert {"tensor_linear", "tensor_wgrad", "wgrad_update"} <= set(backend.emulator.launched)
    assert "linear" not in backend.emulator.launched


def first_kernel(backend: EmulatedBackend, images: Any, trainer: Trainer) -> str:
    """Train for a step; return the kernel that computes the first layer."""
    backend.emulator.launched.clear()
    trainer.fit(images, np.zeros(len(images), np.int64), iterations=1)
    return next(name for name in backend.emulator.launched if name.endswith("linear"))


def trainer_for(backend: EmulatedBackend, *, pixels: int = 64, **options: Any) -> Trainer:
    pixels_input = Pixels((pixels,), shift=options.pop("shift", 0.0))
    stack = [L.Linear(40), L.ReLU(), L.Linear(10)]
    loss = losses.SoftmaxCrossEntropy()
    model = Network(stack, loss, input=pixels_input, backend=backend, **options)
    return Trainer(model, batch_size=34)


@pytest.mark.usefixtures("large")
def test_only_suitable_layers_use_tensor_cores() -> None:
    """Bytes without a shift, in words of four, float32, and a GPU with bfloat16."""
    gpu, images = EmulatedBackend(capability="80"), np.zeros((34, 64), np.uint8)
    trainer = trainer_for(gpu, dtype="float32")
    assert first_kernel(gpu, images, trainer) == "tensor_linear"
    assert first_kernel(gpu, images.astype(np.float32), trainer) == "linear"
    assert first_kernel(gpu, images, trainer) == "tensor_linear"
    assert first_kernel(gpu, images, trainer_for(gpu, dtype="float32", shift=-0.5)) == "linear"
    assert first_kernel(gpu, images, trainer_for(gpu, dtype="float64")) == "linear"
    odd = trainer_for(gpu, dtype="float32", pixels=63)
    assert first_kernel(gpu, images[:, :63], odd) == "linear"
    older = EmulatedBackend(capability="75")
    assert first_kernel(older, images, trainer_for(older, dtype="float32")) == "linear"
