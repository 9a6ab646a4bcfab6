"""Data sets of compiled training, and runs that repeat bit for bit."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from backends import Backend, get_backend
from backends.numba.csr import MAX_SPARSE_DENSITY
from backends.numba.epoch import NumbaEpoch
from backends.numba.kernels import csr, epoch, inference, input_layer
from mnist_accel import nn
from mnist_accel.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from mnist_accel.data import Dataset
from mnist_accel.recipes.models import create_model
from mnist_accel.training.progress import StepsReport
from mnist_accel.training.trainer import Trainer
from tests.support.compiled_training import make_network


@pytest.fixture(scope="module")
def numba() -> Backend:
    return get_backend("numba")


@pytest.mark.parametrize(
    ("density", "is_sparse"),
    [
        ("mnist", True),
        (MAX_SPARSE_DENSITY - 0.02, True),
        (MAX_SPARSE_DENSITY + 0.02, False),
        ("negative", False),
    ],
)
def test_csr_input_is_used_if_few_pixels_are_nonzero(
    numba: Backend, mnist: Dataset, density: float | str, *, is_sparse: bool
) -> None:
    images, labels = mnist.x_train[:200], mnist.t_train[:200]
    if density == "negative":
        images = 255 - images
    elif density != "mnist":
        random = np.random.default_rng(0).random(images.shape)
        images = (random < density).astype(np.uint8)
    trainer = Trainer(make_network("wide", numba))
    assert isinstance(trainer.compiled, NumbaEpoch)
    data = trainer.compiled.load(images.reshape(len(images), -1), labels)
    assert (len(data.arrays.images.pixels) == 0) == is_sparse
    assert (len(data.arrays.images.indices) > 0) == is_sparse


def test_writable_and_read_only_images_share_compiled_code(numba: Backend, mnist: Dataset) -> None:
    images, labels = mnist.x_train[:50], mnist.t_train[:50]
    assert not images.flags.writeable
    compiled = (
        epoch.run_steps,
        input_layer.multiply_csr,
        inference.predict,
        csr.count_by_column,
        csr.write_csr,
    )
    known = []
    for pixels, targets in ((images, labels), (images.copy(), labels.copy())):
        model = make_network("wide", numba)
        Trainer(model, batch_size=20).fit(pixels, targets, epochs=1)
        model.predict(pixels)
        known.append([len(function.signatures) for function in compiled])
    assert known[0] == known[1]


def test_data_sets_of_one_trainer_share_buffers_but_no_results(
    numba: Backend, mnist: Dataset
) -> None:
    images, labels = mnist.x_train[:40], mnist.t_train[:40]
    parts = [(images[:30], labels[:30]), (images[30:], labels[30:])]
    weights = []
    for prepares in (True, False):
        trainer = Trainer(create_model("two-layer", backend=numba), "adam", batch_size=20)
        prepared = [(trainer.prepare(*part),) if prepares else part for part in parts]
        for data in (*prepared, *prepared):
            trainer.fit(*data, epochs=1)
        weights.append(trainer.model.parameters.flat.copy())
    assert np.array_equal(*weights)


@pytest.mark.parametrize("name", ["two-layer", "lenet"])
def test_smaller_batches_use_the_buffers_of_larger_ones_with_the_same_results(
    mnist: Dataset, name: str
) -> None:
    numba = get_backend("numba", threads=2)
    trainer = Trainer(create_model(name, backend=numba), "adam", batch_size=50)
    trainer.fit(mnist.x_train[:50], mnist.t_train[:50], epochs=2)
    fresh = pickle.loads(pickle.dumps(trainer))  # has no buffers yet
    assert isinstance(trainer.compiled, NumbaEpoch)
    (linked,) = trainer.compiled._linked.values()
    buffers = linked.workspace
    for one in (trainer, fresh):
        one.fit(mnist.x_train[50:97], mnist.t_train[50:97], epochs=2)
    assert linked.workspace is buffers
    assert np.array_equal(trainer.model.parameters.flat, fresh.model.parameters.flat)


def test_prepared_data_trains_like_arrays(numba: Backend, mnist: Dataset) -> None:
    weights = []
    for prepares in (True, False):
        model = create_model("two-layer", backend=numba)
        trainer = Trainer(model, "sgd", batch_size=50)
        images, labels = mnist.x_train[:200], mnist.t_train[:200]
        if prepares:
            prepared = trainer.prepare(images, labels)
            trainer.fit(prepared, epochs=1)
            trainer.fit(prepared, epochs=1)
        else:
            trainer.fit(images, labels, epochs=2)
        weights.append(model.state_dict())
    for key, value in weights[0].items():
        assert np.array_equal(value, weights[1][key]), key


@pytest.mark.parametrize("changed", [0, 19])
def test_arrays_that_change_between_two_calls_are_read_again(
    numba: Backend, mnist: Dataset, changed: int
) -> None:
    images, labels = mnist.x_train[:20].copy(), mnist.t_train[:20].copy()
    one, other = (Trainer(create_model("two-layer", backend=numba), lr=0.1) for _ in range(2))
    for trainer in (one, other):
        trainer.fit(images, labels, epochs=1)
    view = images.reshape(-1)[changed * 784 : (changed + 1) * 784]
    view[300] += 1
    labels[changed] = (labels[changed] + 1) % 10
    images.flags.writeable = False
    one.fit(images, labels, epochs=1)
    other.fit(images.copy(), labels.copy(), epochs=1)
    for key, value in one.model.state_dict().items():
        assert np.array_equal(value, other.model.state_dict()[key]), key


def test_prepared_data_is_accepted_only_by_its_own_network(numba: Backend, mnist: Dataset) -> None:
    images, labels = mnist.x_train[:20], mnist.t_train[:20]
    one, other = (Trainer(create_model("two-layer", backend=numba)) for _ in range(2))
    with pytest.raises(ValueError, match="prepared for another network"):
        other.fit(one.prepare(images, labels), epochs=1)
    with pytest.raises(TypeError, match="do not pass labels"):
        one.fit(one.prepare(images, labels), labels, epochs=1)
    with pytest.raises(TypeError, match="labels are missing"):
        one.fit(images, epochs=1)


class ShortChunks:
    """A callback that limits chunks to three steps."""

    every = 3

    def on_steps(self, trainer: Trainer, report: StepsReport) -> None:
        """Do nothing."""

    def on_epoch(self, trainer: Trainer, report: object) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("two-layer", nn.Adam(lr=0.001)),
        ("lenet", nn.Adam(lr=0.001)),
        ("backprop", nn.SGD(lr=3.0, weight_decay=1e-5)),
        # In some steps, but not in all, weight decay reduces the weights by more than half.
        ("backprop", nn.SGD(lr=3.0, weight_decay=0.2)),
    ],
)
def test_runs_are_bit_identical_for_every_division_into_chunks(
    numba: Backend, mnist: Dataset, tmp_path: Path, name: str, optimizer: nn.UpdateRule
) -> None:
    data = mnist.x_train[:596], mnist.t_train[:596]

    def start() -> Trainer:
        model = create_model(name, backend=numba)
        settings = {"batch_size": 64, "seed": 1, "schedule": "cosine", "total_steps": 20}
        return Trainer(model, optimizer, **settings)

    trainers = []
    for callbacks in ((), (ShortChunks(),)):
        trainers.append(start())
        # The last batch of an epoch is too small for two threads and has a chunk for itself.
        trainers[-1].fit(*data, epochs=2, callbacks=callbacks)
    first = start()
    first.fit(*data, iterations=7)
    save_checkpoint(tmp_path / "checkpoint", first)
    trainers.append(load_checkpoint(tmp_path / "checkpoint", backend="numba"))
    trainers[-1].fit(*data, iterations=13)
    expected = trainers[0].model.state_dict()
    for other in trainers[1:]:
        assert other.step == trainers[0].step
        for key, value in other.model.state_dict().items():
            assert np.array_equal(value, expected[key]), key
