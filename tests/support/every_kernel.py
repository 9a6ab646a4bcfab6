"""Small calls and trainings that together launch every CUDA kernel of the project."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np

from backends import Backend
from backends.cupy import plan
from backends.cupy.kernel import cooperative
from backends.cupy.launch import (
    clustered_wgrad,
    convolution,
    fused_classifier,
    tiles,
    wgrad_update,
)
from benchmarks.gpu import overheads
from mnist_accel.nn import layers, losses
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.network import Network
from mnist_accel.training.trainer import Trainer
from tests.support.cuda_emulator.build import kernels_in
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import Emulator
from tests.support.emulated_backend import EmulatedBackend
from tests.support.operation_examples import Example, call, examples

L = layers
FOLDER = Path(__file__).parents[2] / "backends" / "cupy" / "kernels"
ALL_KERNELS = {
    name
    for path in (*FOLDER.rglob("*.cu"), overheads.FILE)
    if path.parent.name != "naive"  # launched only for comparison
    for name in kernels_in(path.read_text(encoding="utf-8"))
}
# The kernels that an operation launches.
KERNELS_OF_OPERATION = {
    "gather_batch": ["gather_batch"],
    "conv2d": ["conv2d"],
    "conv2d_backward": ["conv2d_backward_weight", "conv2d_backward_x"],
    "max_pool2d": ["max_pool2d"],
    "max_pool2d_backward": ["max_pool2d_backward"],
    "avg_pool2d": ["avg_pool2d"],
    "avg_pool2d_backward": ["avg_pool2d_backward"],
    "loss": ["loss"],
    "update": ["update"],
}


def expected_launches(example: Example) -> list[str]:
    """Return the kernels that an example must launch; an empty list if it uses none."""
    kernels = KERNELS_OF_OPERATION.get(example.operation, [])
    if "conv2d" in example.operation:
        weight = example.arrays["weight"]
        assert weight is not None
        height, width = weight.shape[2:]
        if example.settings["stride"] != 1 or height != width:
            return []
        return kernels if example.settings.get("need_dx", True) else kernels[:1]
    if example.operation == "loss" and example.settings["kind"] == "multilabel_cross_entropy":
        return []
    return kernels


class Training(NamedTuple):
    """A network with at least three classes and the settings of its training."""

    image_shape: tuple[int, ...]
    stack: list[layers.Layer]
    loss: losses.Loss
    batch_size: int
    optimizer: str = "adam"


def trainings() -> list[Training]:
    """Return trainings that together launch all kernels of compiled training."""
    softmax, quadratic, binary = (
        losses.SoftmaxCrossEntropy(),
        losses.Quadratic(),
        losses.BinaryCrossEntropy(),
    )
    return [
        *_convolution_trainings(softmax),
        # 33 classes are more than the fused classifier supports.
        *(
            Training((1, 9, 9), _separate_pooling(), loss, 2)
            for loss in (softmax, quadratic, binary)
        ),
        *_large_tile_trainings(softmax),
        *(
            Training((17,), [L.Linear(2), L.Tanh(), L.Linear(3)], loss, 2, optimizer)
            for loss, optimizer in (
                (quadratic, "momentum"),
                (binary, "adagrad"),
                (softmax, "rmsprop"),
            )
        ),
        persistent_mlp_training(),
        # enough images for clustered gradients
        Training((17,), [L.Linear(5), L.Tanh(), L.Linear(3)], softmax, 20),
        Training((17,), [L.Linear(3)], losses.SoftmaxCrossEntropy(l2=0.1), 2),
    ]


def persistent_mlp_training() -> Training:
    stack = [L.Linear(5), L.Sigmoid(), L.Linear(3)]
    return Training((17,), stack, losses.Quadratic(), 2, "sgd")


def fused_cnn_training() -> Training:
    """Return a training by clusters, or with the fused classifier on older GPUs."""
    stack = [L.Conv2d(2, 3), L.ReLU(), L.MaxPool2d(), L.Conv2d(4, 2), L.MaxPool2d()]
    stack += [L.Flatten(), L.Linear(4), L.ReLU(), L.Linear(3)]
    return Training((1, 12, 12), stack, losses.SoftmaxCrossEntropy(), 2)


def _convolution_trainings(loss: losses.Loss) -> list[Training]:
    small_cnn = [L.Conv2d(2, 3, bias=False, uniform=True), L.MaxPool2d(ties="all")]
    small_cnn += [L.Flatten(), L.Linear(3)]
    return [
        fused_cnn_training(),
        Training((1, 7, 7), small_cnn, loss, 1, "sgd"),  # persistent
        Training((1, 7, 7), small_cnn, loss, 3, "sgd"),
    ]


def _separate_pooling() -> list[layers.Layer]:
    return [
        *(L.Tanh(), L.Conv2d(2, 3, padding=1), L.MaxPool2d(3, stride=2), L.AvgPool2d(), L.Tanh()),
        *(L.Flatten(), L.Linear(33), L.Tanh()),
    ]


def _large_tile_trainings(loss: losses.Loss) -> list[Training]:
    """Return trainings with large tiles: linear layer, classifier, convolution, tensor cores."""
    linear = [L.Linear(40), L.Linear(33), L.ReLU(), L.Linear(35), L.Tanh(), L.Linear(3)]
    convolution = [L.Conv2d(2, 3), L.Flatten(), L.Linear(33), L.Tanh(), L.Linear(3)]
    tensor_cores = [L.Linear(40), L.Tanh(), L.Linear(3)]  # the pixels are whole words
    return [
        Training((17,), linear, loss, 100),
        Training((1, 6, 6), convolution, loss, 40),
        Training((12,), tensor_cores, loss, 100),
    ]


def trainer_of(
    backend: Backend, training: Training, *, seed: int = 1, lr: float | None = None
) -> Trainer:
    """Return the trainer of a compiled network; the seed also chooses the initial weights."""
    shape, stack, loss, batch_size, optimizer = training
    model = Network(stack, loss, input=Pixels(shape), backend=backend, seed=seed)
    trainer = Trainer(model, optimizer, batch_size=batch_size, seed=seed, lr=lr)
    assert trainer.compiled is not None, trainer.not_compiled
    return trainer


def examples_of(training: Training) -> tuple[Any, Any]:
    """Return images and labels for two steps, the second with a smaller batch if possible."""
    rng, count = np.random.default_rng(4), max(2, 2 * training.batch_size - 1)
    shape = count, *training.image_shape[-2:]
    return rng.integers(256, size=shape, dtype=np.uint8), rng.integers(3, size=count)


def train(backend: Backend, training: Training) -> list[Any]:
    """Train for two steps; return the losses, the weights and the probabilities of the images."""
    trainer, (images, labels) = trainer_of(backend, training), examples_of(training)
    history, model = trainer.fit(images, labels, epochs=1), trainer.model
    return [history.losses, *model.state_dict().values(), model.predict_proba(images)]


def _variant(example: Example) -> tuple[str, Any]:
    """Return the operation and, for a loss or an update, the kind."""
    rule = example.settings.get("rule")
    return example.operation, rule.kind if rule else example.settings.get("kind")


def results_on(backend: Backend) -> list[Any]:
    """Run one example of each operation that has a kernel, and all trainings."""
    found = [example for example in examples("float32", 3) if expected_launches(example)]
    one_of_each = {_variant(example): example for example in reversed(found)}.values()
    with small_thresholds():
        results = [result for example in one_of_each for result in call(example, backend)]
        return results + [part for training in trainings() for part in train(backend, training)]


@contextmanager
def small_thresholds() -> Iterator[None]:
    """Lower thresholds, so that small sizes are divided among blocks like large ones."""
    with (
        patch.object(clustered_wgrad, "MIN_IMAGES", 20),
        patch.object(wgrad_update, "MIN_TERMS", 8),
        patch.object(plan, "MAX_WEIGHTS", 1200),
        patch.object(fused_classifier, "TARGET_BLOCKS", 1),
        patch.object(convolution, "TARGET_THREADS", 100),
        patch.object(tiles, "MIN_LARGE_TILES", 4),
    ):
        yield


def results_of_every_kernel(emulator: Emulator) -> list[Any]:
    """Launch every kernel on the emulator; return all results.

    In addition to `results_on`, it runs what is launched without clusters, and the kernels of the
    benchmark `overheads`.
    """
    results = results_on(EmulatedBackend(emulator, capability="90"))
    with small_thresholds():
        for training in (persistent_mlp_training(), fused_cnn_training()):
            results += train(EmulatedBackend(emulator, capability="80"), training)
    cupy, target, rounds = EmulatedCupy(emulator), np.full(70, np.nan), np.int32(3)
    sums, counters = np.full(64, np.nan, np.float32), np.zeros(2, np.uint32)
    overheads.kernel(cupy, "empty")((1,), (32,), ())
    overheads.kernel(cupy, "copy")((2,), (32,), (np.arange(70.0), np.int64(70), target))
    overheads.kernel(cupy, "multiply_add")((2,), (32,), (rounds, np.float32(0.5), sums))
    cooperative(overheads.kernel(cupy, "barrier"))((3,), (32,), (rounds, counters))
    overheads.kernel(cupy, "barrier", BLOCKS=8, CLUSTER=1)((8,), (32,), (rounds, counters))
    overheads.kernel(cupy, "round_trip", BLOCKS=8, CLUSTER=1)((8,), (32,), (rounds, counters))
    return [*results, target, sums, counters]
