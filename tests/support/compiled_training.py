"""Compares compiled with eager training, and provides networks and optimizers for this."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from backends import Backend
from mnist_accel import nn
from mnist_accel.data.batches import Sampling
from mnist_accel.nn import layers, losses
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.network import Network
from mnist_accel.training.trainer import Trainer
from mnist_accel.util.tolerance import relative_tolerance
from tests.support.closeness import assert_close

L = layers
# Input shape and layers of each network.
NETWORKS: dict[str, tuple[tuple[int, ...], Sequence[L.Layer]]] = {
    "no bias": ((784,), [L.Linear(20, bias=False), L.Tanh(), L.Linear(10, bias=False)]),
    "one layer": ((784,), [L.Linear(10)]),
    "an activation first": ((784,), [L.Tanh(), L.Linear(10)]),
    "two activations": ((784,), [L.Linear(9), L.Sigmoid(), L.Tanh(), L.Linear(10)]),
    "wide": ((784,), [L.Linear(136), L.ReLU(), L.Linear(10)]),
    "pooling first": ((1, 28, 28), [L.AvgPool2d(), L.Flatten(), L.Linear(10)]),
    "large pooling first": ((1, 28, 28), [L.AvgPool2d(9, stride=6), L.Flatten(), L.Linear(10)]),
    "overlapping pooling": (
        (1, 28, 28),
        [L.Conv2d(3, 3), L.ReLU(), L.MaxPool2d(3, stride=2), L.Flatten(), L.Linear(10)],
    ),
    "pooling twice": (
        (1, 28, 28),
        [L.Conv2d(4, 3), L.MaxPool2d(), L.MaxPool2d(), L.Flatten(), L.Linear(10)],
    ),
    "average pooling between convolutions": (
        (1, 28, 28),
        [L.Conv2d(5, 5), L.Tanh(), L.AvgPool2d(), L.Conv2d(7, 3), L.Flatten(), L.Linear(10)],
    ),
    "convolution without pooling": (
        (1, 28, 28),
        [L.Conv2d(3, 7, padding=1), L.Sigmoid(), L.Flatten(), L.Linear(10)],
    ),
    "pooling, then sigmoid": (
        (1, 28, 28),
        [L.Conv2d(9, 4), L.MaxPool2d(), L.Sigmoid(), L.Flatten(), L.Linear(10)],
    ),
    "many channels": (
        (1, 28, 28),
        [
            L.Conv2d(20, 3, padding=1),
            L.ReLU(),
            L.MaxPool2d(),
            L.Conv2d(33, 3),
            L.ReLU(),
            L.MaxPool2d(),
            L.Flatten(),
            L.Linear(30),
            L.ReLU(),
            L.Linear(10),
        ],
    ),
    "all ties": (
        (1, 28, 28),
        [L.Conv2d(3, 3, uniform=True), L.MaxPool2d(ties="all"), L.Flatten(), L.Linear(10)],
    ),
    "1×1 feature maps": ((1, 28, 28), [L.Conv2d(2, 28), L.Flatten(), L.Linear(10)]),
    "3×3 and 2×2 feature maps": (
        (1, 28, 28),
        [L.Conv2d(2, 26), L.ReLU(), L.Conv2d(17, 2), L.Flatten(), L.Linear(10)],
    ),
}
OPTIMIZERS = {
    "sgd": nn.SGD(lr=0.05),
    "sgd, weight decay 0.1": nn.SGD(lr=0.05, weight_decay=0.1),
    "sgd, weight decay 4": nn.SGD(lr=0.05, weight_decay=4.0),
    "sgd, weight decay 12": nn.SGD(lr=0.05, weight_decay=12.0),
    "momentum": nn.SGD(lr=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": nn.SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adagrad": nn.AdaGrad(lr=0.01, weight_decay=0.01),
    "rmsprop": nn.RMSProp(lr=0.001, weight_decay=0.01),
    "adam": nn.Adam(lr=0.001, weight_decay=0.01),
    "adamw": nn.AdamW(lr=0.001, weight_decay=0.1),
}


def make_network(name: str, backend: Backend, dtype: str = "float64") -> Network:
    """Return a new network of `NETWORKS`; its weights depend only on its name."""
    input_shape, stack = NETWORKS[name]
    return Network(
        stack, losses.SoftmaxCrossEntropy(), input=Pixels(input_shape), backend=backend, dtype=dtype
    )


def assert_compiled_matches_eager(
    models: tuple[Network, Network],
    data: tuple[Any, Any],
    optimizer: nn.UpdateRule,
    *,
    batch_size: int,
    sampling: Sampling = "shuffle",
    steps: int = 10,
) -> None:
    """Train the first network compiled and the second eagerly; compare losses, weights and state.

    Args:
        models: two networks with the same layers and weights.
        data: images and labels.
        optimizer: optimizer of both networks.
        batch_size: batch size of both networks.
        sampling: order of the images.
        steps: number of optimizer updates.
    """
    images, labels = data
    trainers, histories = [], []
    for model, compiled in zip(models, (True, False), strict=True):
        trainer = Trainer(
            model, optimizer, batch_size=batch_size, sampling=sampling, seed=5, compiled=compiled
        )
        assert (trainer.compiled is not None) == compiled, trainer.not_compiled
        trainers.append(trainer)
        histories.append(trainer.fit(images, labels, iterations=steps))
    dtype = models[0].dtype
    terms = 784 * batch_size  # a gradient is a sum over images, each term a sum over pixels
    got, want = (np.array(history.losses) for history in histories)
    np.testing.assert_allclose(got, want, rtol=relative_tolerance(dtype, terms=terms, steps=steps))
    assert [e.train_accuracy for e in histories[0].epochs] == [
        e.train_accuracy for e in histories[1].epochs
    ]
    for key, weight in models[1].state_dict().items():
        got = models[0].state_dict()[key]
        assert_close(got, weight, dtype=dtype, terms=terms, steps=steps, label=key)
    for name, array in trainers[1].optimizer_state.items():
        got = trainers[0].optimizer_state[name]
        assert_close(got, array, dtype=dtype, terms=terms, steps=steps, label=name)
