"""Every kernel there is, on little: whoever is first among threads, and under AddressSanitizer.

A kernel that is not among these is noticed. That they compute what they should, others show.
"""

from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytest

from backends import Backend
from backends.cupy import workspace as cupy_workspace
from backends.cupy.launch import fused_classifier as head
from backends.cupy.launch import launches, tiles
from backends.cupy.launch import wgrad_update as descent
from backends.cupy.loader import cooperative
from benchmarks.gpu import overheads
from mnist_accel.nn import layers, losses
from mnist_accel.nn.network import Network
from mnist_accel.training.trainer import Trainer
from tests.gpu.test_cuda_kernels import kernels_of
from tests.support.closeness import assert_same_bits
from tests.support.cuda_emulator.build import kernels_in
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import Emulator, ThreadOrder
from tests.support.cuda_emulator.sanitizer import run_under_sanitizer
from tests.support.emulated_backend import EmulatedBackend
from tests.support.operation_examples import call, examples

FOLDER = Path(__file__).parents[2] / "backends" / "cupy" / "kernels"
KERNELS = {
    name
    for path in (*FOLDER.glob("*.cu"), overheads.FILE)
    for name in kernels_in(path.read_text(encoding="utf-8"))
}
L = layers


class Training(NamedTuple):
    """A network of three or more classes, and how it is trained."""

    image_shape: tuple[int, ...]
    row: list[layers.Layer]
    loss: losses.Loss
    batch_size: int
    optimizer: str = "adam"


def trainings() -> list[Training]:
    """The kernels of compiled epochs together: first and later stages, pooled and not."""
    softmax, quadratic = losses.SoftmaxCrossEntropy(), losses.Quadratic()
    pooled_twice = [L.Conv2d(2, 3), L.ReLU(), L.MaxPool2d(), L.Conv2d(3, 2), L.MaxPool2d()]
    pooled_twice += [L.Flatten(), L.Linear(4), L.ReLU(), L.Linear(3)]
    pools = [L.Tanh(), L.Conv2d(2, 3, padding=1), L.MaxPool2d(3, stride=2), L.AvgPool2d(), L.Tanh()]
    pools += [L.Flatten(), L.Linear(33), L.Tanh()]  # more classes than `head` takes
    one_by_one = [L.Conv2d(2, 3, bias=False, uniform=True), L.MaxPool2d(ties="all")]
    one_by_one += [L.Flatten(), L.Linear(3)]
    return [
        Training((1, 12, 12), pooled_twice, softmax, 2),
        *(
            Training((1, 9, 9), pools, loss, 2)
            for loss in (softmax, quadratic, losses.BinaryCrossEntropy())
        ),
        Training((1, 7, 7), one_by_one, softmax, 1, "sgd"),
        *(
            Training((17,), [L.Linear(2), L.Tanh(), L.Linear(3)], loss, 2, optimizer)
            for loss, optimizer in (
                (quadratic, "momentum"),
                (losses.BinaryCrossEntropy(), "adagrad"),
                (softmax, "rmsprop"),
            )
        ),
        # By large tiles: a layer too large for the head, the head itself; beside a convolution.
        Training(
            *((17,), [L.Linear(40), L.Linear(33), L.ReLU(), L.Linear(35), L.Tanh(), L.Linear(3)]),
            *(softmax, 100),
        ),
        Training(
            *((1, 6, 6), [L.Conv2d(2, 3), L.Flatten(), L.Linear(33), L.Tanh(), L.Linear(3)]),
            *(softmax, 40),
        ),
        Training((17,), [L.Linear(5), L.Sigmoid(), L.Linear(3)], quadratic, 2, "sgd"),
    ]


def trained(backend: Backend, training: Training) -> list[Any]:
    """Train for two steps, the second with fewer images if possible; return losses and weights."""
    shape, row, loss, batch_size, optimizer = training
    model = Network(row, loss, input_shape=shape, backend=backend)
    trainer = Trainer(model, optimizer, batch_size=batch_size, seed=1)
    assert trainer.compiled is not None, trainer.not_compiled
    rng, count = np.random.default_rng(4), max(2, 2 * batch_size - 1)
    images = rng.integers(256, size=(count, *shape[-2:]), dtype=np.uint8)
    history = trainer.fit(images, rng.integers(3, size=count), epochs=1)
    return [history.losses, *model.state_dict().values()]


def results_on(backend: Backend) -> list[Any]:
    """An example of every operation that has kernels, and all trainings."""
    found = [example for example in examples("float32", 3) if kernels_of(example)]
    one_of_each = {example.operation: example for example in reversed(found)}.values()
    # Sizes are small here; so are those from which on work is shared out in other ways.
    with (
        patch.object(descent, "FEWEST_TERMS", 8),
        patch.object(cupy_workspace, "MOST_WEIGHTS", 1200),
        patch.object(head, "WANTED_BLOCKS", 1),
        patch.object(launches, "WANTED_THREADS", 100),
        patch.object(tiles, "FEWEST_LARGE", 4),
    ):
        results = [result for example in one_of_each for result in call(example, backend)]
        return results + [part for training in trainings() for part in trained(backend, training)]


def results_of_all(device: Emulator) -> list[Any]:
    """The same on the emulator, and what is special: a grid for a cluster, what is measured."""
    *_, small_batches = trainings()
    results = results_on(EmulatedBackend(device, capability="90"))
    results += trained(EmulatedBackend(device, capability="80"), small_batches)
    cupy, target, rounds = EmulatedCupy(device), np.full(70, np.nan), np.int32(3)
    sums, barrier = np.full(64, np.nan, np.float32), np.zeros(2, np.uint32)
    overheads.kernel(cupy, "nothing")((1,), (32,), ())
    overheads.kernel(cupy, "copy")((2,), (32,), (np.arange(70.0), np.int64(70), target))
    overheads.kernel(cupy, "multiply_add")((2,), (32,), (rounds, np.float32(0.5), sums))
    cooperative(overheads.kernel(cupy, "meet"))((3,), (32,), (rounds, barrier))
    overheads.kernel(cupy, "meet", BLOCKS=8, CLUSTER=1)((8,), (32,), (rounds, barrier))
    return [*results, target, sums, barrier]


@pytest.mark.emulated
def test_results_do_not_depend_on_who_is_first() -> None:
    expected = results_of_all(Emulator())
    assert all(np.isfinite(one).all() for one in expected)
    for order in (ThreadOrder.DESCENDING, ThreadOrder.RANDOM):
        device = Emulator(order, seed=5)
        assert_same_bits(results_of_all(device), expected)
        assert set(device.launched) == KERNELS


UNDER_SANITIZER = """
from tests.support.cuda_emulator.raw_module import Emulator
from tests.gpu.test_every_kernel import results_of_all

device = Emulator(sanitize=True)
results_of_all(device)
print(*sorted(set(device.launched)))
"""


@pytest.mark.emulated
def test_every_kernel_stays_within_its_arrays() -> None:
    result = run_under_sanitizer(UNDER_SANITIZER)
    assert result.stdout.split() == sorted(KERNELS), result.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cupy"], indirect=True)
def test_results_on_a_gpu_repeat_to_the_bit(backend: Backend) -> None:
    assert_same_bits(results_on(backend), results_on(backend))
