"""The persistent kernels compute the same as the single-threaded ones of `kernels/naive/`."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from backends.cupy.chunk import ChunkMemory
from backends.cupy.launch import persistent_cnn, persistent_mlp
from backends.cupy.launch.conv_shape import ConvShape
from backends.cupy.launch.graph_batch import Chunk, DeviceDataset
from backends.cupy.members import Memory
from mnist_accel import nn
from mnist_accel.nn import layers, losses
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.network import Network
from tests.support.closeness import assert_close
from tests.support.emulated_backend import EmulatedBackend
from tests.support.naive_kernels import LR, Setting, map_shape

pytestmark = pytest.mark.emulated
L = layers
WEIGHT_DECAY = 0.01


def chunk_of(setting: Setting, bounds: Any, *, rows: int) -> Chunk:
    """Return a chunk with these batches."""
    steps = len(bounds)
    chunk = ChunkMemory(Memory(setting.cupy), setting.dtype, steps=steps, rows=16 * steps).device
    chunk.rows[...] = np.arange(chunk.rows.size) * 7 % rows
    chunk.bounds[...] = bounds
    chunk.rates[...] = LR, 0, 0
    return chunk


def naive_settings(model: Network, steps: int, activation: str) -> dict[str, Any]:
    """Return the settings of a naive persistent kernel."""
    return {
        "loss": model.loss.kind,
        "activation": activation,
        "steps": steps,
        "lr": LR,
        "pixel_shift": -0.5,
        "weight_decay": WEIGHT_DECAY,
    }


@pytest.mark.parametrize(
    "conv",
    [
        ConvShape(channels=1, height=9, width=8, filters=3, kernel_size=3, padding=0, pool=2),
        ConvShape(channels=1, height=8, width=11, filters=9, kernel_size=2, padding=0, pool=2),
    ],
    ids=["3×3", "odd width, 2×2"],
)
def test_persistent_cnn_matches_one_naive_thread(setting: Setting, conv: ConvShape) -> None:
    classes, steps = 4, 6
    features = math.prod(map_shape(conv)[1:])
    size, shape = conv.kernel_size, (1, conv.height, conv.width)
    convolution = L.Conv2d(conv.filters, size, bias=False, uniform=True)
    stack = [convolution, L.Tanh(), L.MaxPool2d(), L.Flatten(), L.Linear(classes)]
    program, settings = program_of(stack, shape, steps, "tanh")
    chunk = chunk_of(setting, [(i, i + 1) for i in range(steps)], rows=5)
    pixels = math.prod(shape)
    images = setting.integers(256, 5, pixels, dtype="uint8")
    dataset = DeviceDataset(images, setting.integers(classes, 5))
    filters = setting.random(conv.filters, 1, size, size)
    fast = filters, setting.random(features, classes), setting.random(classes)
    naive = tuple(setting.cupy.array(array) for array in fast)
    constants = persistent_cnn.constants_for(program)
    assert constants is not None
    persistent_cnn.train(setting.launcher, program, dataset, chunk, steps, fast, constants)
    step_losses, correct = setting.empty(steps, dtype="float64"), setting.integers(9, steps)
    setting.naive(
        "persistent_cnn",
        1,
        images=dataset.images,
        labels=dataset.labels,
        rows=chunk.rows,
        settings=settings,
        conv=asdict(conv),
        classes=classes,
        **dict(zip(("filters", "weight", "bias"), naive, strict=True)),
        image=setting.empty(pixels),
        features=setting.empty(features),
        gradients=setting.empty(features),
        mask=setting.masks(features),
        logits=setting.empty(classes),
        dlogits=setting.empty(classes),
        losses=step_losses,
        correct=correct,
    )
    for got, expected in zip(fast, naive, strict=True):
        assert_close(got, expected, dtype="float64", terms=100, steps=steps)
    assert_close(chunk.losses, step_losses, dtype="float64", terms=100, steps=steps)
    np.testing.assert_array_equal(chunk.correct, correct)


@pytest.mark.parametrize("capability", [80, 90], ids=["grid", "cluster"])
def test_persistent_mlp_matches_one_naive_thread(setting: Setting, capability: int) -> None:
    inputs, hidden, outputs, bounds = 19, 5, 4, [(0, 6), (6, 12), (12, 14)]
    stack = [L.Linear(hidden), L.Sigmoid(), L.Linear(outputs)]
    program, settings = program_of(stack, (inputs,), len(bounds), "sigmoid")
    chunk = chunk_of(setting, bounds, rows=9)
    dataset = DeviceDataset(
        setting.integers(256, 9, inputs, dtype="uint8"), setting.integers(outputs, 9)
    )
    shapes = (inputs, hidden), (hidden,), (hidden, outputs), (outputs,)
    fast: Any = tuple(setting.random(*shape) for shape in shapes)
    naive = tuple(setting.cupy.array(array) for array in fast)
    constants = persistent_mlp.constants_for(
        program, batch_size=6, capability=capability, multiprocessors=132
    )
    assert constants is not None
    scratch = persistent_mlp.new_scratch(Memory(setting.cupy), program, len(bounds))
    persistent_mlp.train(
        setting.launcher, program, dataset, chunk, len(bounds), fast, scratch, constants
    )
    step_losses = setting.empty(len(bounds), dtype="float64")
    correct = setting.integers(9, len(bounds))
    setting.naive(
        "persistent_mlp",
        1,
        images=dataset.images,
        labels=dataset.labels,
        rows=chunk.rows,
        bounds=chunk.bounds,
        settings=settings,
        sizes={"inputs": inputs, "hidden": hidden, "outputs": outputs},
        **dict(zip(("weight1", "bias1", "weight2", "bias2"), naive, strict=True)),
        x=setting.empty(6, inputs),
        h=setting.empty(6, hidden),
        dh=setting.empty(6, hidden),
        logits=setting.empty(6, outputs),
        dlogits=setting.empty(6, outputs),
        losses=step_losses,
        correct=correct,
    )
    for got, expected in zip(fast, naive, strict=True):
        assert_close(got, expected, dtype="float64", terms=100, steps=len(bounds))
    assert_close(chunk.losses, step_losses, dtype="float64", terms=100, steps=len(bounds))
    np.testing.assert_array_equal(chunk.correct, correct)


def program_of(
    stack: Sequence[L.Layer], input_shape: tuple[int, ...], steps: int, activation: str
) -> tuple[Any, dict[str, Any]]:
    """Return a training program with SGD, and the settings of the naive kernel for it."""
    model = Network(
        stack,
        losses.Quadratic(),
        input=Pixels(input_shape, shift=-0.5),
        backend=EmulatedBackend(),
        dtype="float64",
    )
    program = model.training_program(nn.SGD(weight_decay=WEIGHT_DECAY))
    return program, naive_settings(model, steps, activation)
