"""Networks and helpers for the tests of compiled training on a GPU and on the CUDA emulator."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from backends import Backend, Ties
from mnist_accel.data import Dataset
from mnist_accel.nn import layers, losses
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.network import Network
from mnist_accel.training.trainer import Trainer
from tests.support.compiled_training import assert_compiled_matches_eager
from tests.support.emulated_backend import EmulatedBackend

L = layers

# Runs a test on the emulator and, if this machine has a GPU, on CuPy with real CUDA graphs.
emulated_and_cupy = pytest.mark.parametrize(
    "backend", [EmulatedBackend.name, pytest.param("cupy", marks=pytest.mark.gpu)], indirect=True
)


def assert_few_steps_match_eager(*args: Any, steps: int = 4, **options: Any) -> None:
    """Compare compiled with eager training after 4 steps, because emulation is slow.

    4 steps are enough for a smaller last batch and a second epoch.
    """
    assert_compiled_matches_eager(*args, steps=steps, **options)


def kernels_launched_by_step(trainer: Trainer, mnist: Dataset, *, images: int) -> list[str]:
    """Train for one step on the emulator; return the names of the launched kernels in order."""
    backend = trainer.model.backend
    assert isinstance(backend, EmulatedBackend)
    backend.emulator.launched.clear()
    trainer.fit(mnist.x_train[:images], mnist.t_train[:images], iterations=1)
    return list(backend.emulator.launched)


def twin_networks(
    stack: Sequence[L.Layer],
    input_shape: tuple[int, ...],
    backend: Backend,
    *,
    loss: losses.Loss | None = None,
    dtype: str = "float64",
) -> tuple[Network, Network]:
    """Return two networks with the same layers and the same weights."""
    loss = loss or losses.SoftmaxCrossEntropy()
    settings: Any = {"input": Pixels(input_shape), "backend": backend, "dtype": dtype}
    return Network(stack, loss, **settings), Network(stack, loss, **settings)


def centers(mnist: Dataset, count: int, *, side: int = 8) -> tuple[Any, Any]:
    """Return the first images, cropped to (count, side, side) near the center, and their labels."""
    crop = slice(8, 8 + side)
    return np.ascontiguousarray(mnist.x_train[:count, crop, crop]), mnist.t_train[:count]


def small_convolutions(backend: Backend) -> tuple[Network, Network]:
    """Return twin networks of two convolutions, for images of 8×8 pixels."""
    stack = [L.Conv2d(4, 3, padding=1), L.ReLU(), L.MaxPool2d(), L.Conv2d(6, 2), L.Tanh()]
    stack += [L.Flatten(), L.Linear(40), L.ReLU(), L.Linear(10)]
    return twin_networks(stack, (1, 8, 8), backend)


def small_cnn(
    backend: Backend,
    *between: L.Layer,
    filters: int = 8,
    kernel_size: int = 3,
    ties: Ties = "all",
    dtype: str = "float32",
    loss: losses.Loss | None = None,
    **options: Any,
) -> Network:
    """Return a network like the recipe `cnn`: one pooled convolution and a linear layer.

    Args:
        backend: the backend of the network.
        between: layers between the convolution and the pooling.
        filters: number of filters.
        kernel_size: side of each filter.
        ties: which maxima of a pooling patch receive the gradient.
        dtype: dtype of the parameters.
        loss: softmax cross-entropy if None.
        options: further arguments of the convolution.
    """
    convolution = {"kernel_size": kernel_size, "bias": False, "uniform": True, **options}
    stack = [L.Conv2d(filters, **convolution), *between, L.MaxPool2d(2, ties=ties)]
    return Network(
        [*stack, L.Flatten(), L.Linear(10)],
        loss or losses.SoftmaxCrossEntropy(),
        input=Pixels((1, 28, 28), shift=-0.5),
        backend=backend,
        dtype=dtype,
    )


def small_mlp(
    backend: Backend,
    *,
    activation: L.Layer | None = None,
    loss: losses.Loss | None = None,
    inputs: int = 784,
    hidden: int = 6,
    bias: bool = True,
    dtype: str = "float64",
) -> Network:
    """Return a network like the recipe `backprop`: two linear layers."""
    return Network(
        [L.Linear(hidden, bias=bias), activation or L.Sigmoid(), L.Linear(10)],
        loss or losses.Quadratic(),
        input=Pixels((inputs,)),
        backend=backend,
        dtype=dtype,
    )
