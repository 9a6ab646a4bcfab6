"""Compiled epochs do what the same steps do one operation at a time."""

import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import Backend, get_backend
from backends.numba.epoch import NumbaEpoch
from backends.numba.kernels import epoch, inference, lists
from backends.numba.kernels.stages import LINEAR, SPARSE_LINEAR
from mnist_accel.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from mnist_accel.data import Dataset
from mnist_accel.nn import layers, losses, optimizers
from mnist_accel.nn.network import Network
from mnist_accel.recipes.models import RECIPES, create_model
from mnist_accel.training.evaluation import evaluate
from mnist_accel.training.reports import StepsReport
from mnist_accel.training.trainer import Trainer
from tests.support.compiled_training import (
    NETWORKS,
    OPTIMIZERS,
    assert_compiled_matches_eager,
    make_network,
)

L = layers


@pytest.fixture(scope="module")
def numba() -> Backend:
    return get_backend("numba")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe(numba: Backend, mnist: Dataset, name: str, dtype: str) -> None:
    recipe = RECIPES[name]
    sizes = {"cnn": 1, "lenet": 33, "fast99": 33}
    batch_size = sizes.get(name, 70)
    models = tuple(create_model(name, backend=numba, seed=3, dtype=dtype) for _ in range(2))
    count = batch_size * 4 - 1  # the last batch of an epoch is smaller
    optimizer = optimizers.create_optimizer(recipe.optimizer, lr=recipe.lr)
    if isinstance(optimizer, optimizers.Adam) and dtype == "float32":
        # With its eps of 1e-8, the rounding of a gradient near 0 becomes a step of its own.
        optimizer = replace(optimizer, eps=1e-4)
    assert_compiled_matches_eager(
        models,  # type: ignore[arg-type]
        (mnist.x_train[:count], mnist.t_train[:count]),
        optimizer,
        batch_size=batch_size,
        sampling=recipe.sampling,
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_ones_own(numba: Backend, mnist: Dataset, name: str) -> None:
    models = make_network(name, numba), make_network(name, numba)
    data = mnist.x_train[:101], mnist.t_train[:101]
    assert_compiled_matches_eager(models, data, optimizers.SGD(lr=0.02), batch_size=40)


@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(numba: Backend, mnist: Dataset, name: str, *, sparse: bool) -> None:
    models = make_network("two activations", numba), make_network("two activations", numba)
    images = mnist.x_train[:101] if sparse else 255 - mnist.x_train[:101]
    assert_compiled_matches_eager(
        models, (images, mnist.t_train[:101]), OPTIMIZERS[name], batch_size=64
    )


@pytest.mark.parametrize(
    ("part", "takes_lists"), [("mnist", True), (0.33, True), (0.37, False), ("negative", False)]
)
def test_lists_are_taken_where_few_pixels_are_not_0(
    numba: Backend, mnist: Dataset, part: float | str, *, takes_lists: bool
) -> None:
    images, labels = mnist.x_train[:200], mnist.t_train[:200]
    if part == "negative":
        images = 255 - images
    elif part != "mnist":
        random = np.random.default_rng(0).random(images.shape)
        images = (random < part).astype(np.uint8)
    trainer = Trainer(make_network("wide", numba))
    assert isinstance(trainer.compiled, NumbaEpoch)
    data = trainer.compiled.load(images.reshape(len(images), -1), labels)
    stage = SPARSE_LINEAR if takes_lists else LINEAR
    assert data.layout.plan.stages[0]["kind"] == stage
    assert (len(data.images.pixels) == 0) == takes_lists
    assert (len(data.images.columns) > 0) == takes_lists


def test_images_that_can_be_written_to_are_compiled_for_with_all_others(
    numba: Backend, mnist: Dataset
) -> None:
    images, labels = mnist.x_train[:50], mnist.t_train[:50]
    assert not images.flags.writeable
    compiled = (epoch.run_steps, inference.predict, lists.count_by_column, lists.write_lists)
    known = []
    for pixels, targets in ((images, labels), (images.copy(), labels.copy())):
        model = make_network("wide", numba)
        Trainer(model, batch_size=20).fit(pixels, targets, epochs=1)
        model.predict(pixels)
        known.append([len(function.signatures) for function in compiled])
    assert known[0] == known[1]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "schedule"), [("float32", "cosine"), ("float64", "constant")])
def test_both_tiers_come_to_the_same_accuracy(
    numba: Backend, mnist: Dataset, dtype: str, schedule: str
) -> None:
    """An epoch of `backprop`, 6000 steps.

    With its constant rate of 3 the accuracy jumps by a percent between any two steps at the end,
    and in float32 rounding is enough to make the tiers jump at different ones.
    """
    recipe = RECIPES["backprop"]
    optimizer = optimizers.SGD(lr=recipe.lr, weight_decay=recipe.weight_decay)
    accuracies: dict[bool, list[float]] = {True: [], False: []}
    for seed, (compiled, got) in itertools.product(range(3), accuracies.items()):
        model = create_model("backprop", backend=numba, seed=seed, dtype=dtype)
        settings = {"batch_size": 10, "seed": seed, "schedule": schedule, "compiled": compiled}
        Trainer(model, optimizer, **settings).fit(mnist.x_train, mnist.t_train, epochs=1)
        got.append(evaluate(model, mnist.x_test, mnist.t_test).accuracy)
    assert min(accuracies[True]) > 0.88
    assert abs(np.mean(accuracies[True]) - np.mean(accuracies[False])) < 0.0005


@pytest.mark.parametrize("loss", [losses.BinaryCrossEntropy(), losses.Quadratic()])
def test_every_loss(numba: Backend, mnist: Dataset, loss: losses.Loss) -> None:
    row = [L.Linear(12), L.ReLU(), L.Linear(10)]
    models = tuple(
        Network(row, loss, input_shape=(784,), backend=numba, dtype="float64") for _ in range(2)
    )
    data = mnist.x_train[:90], mnist.t_train[:90]
    assert_compiled_matches_eager(models, data, optimizers.SGD(lr=0.05), batch_size=32)  # type: ignore[arg-type]


@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_float_images(numba: Backend, mnist: Dataset, dtype: str, *, sparse: bool) -> None:
    images = mnist.x_train[:80] / np.float64(255)
    images = images if sparse else 1 - images
    models = make_network("wide", numba, dtype), make_network("wide", numba, dtype)
    assert_compiled_matches_eager(
        models, (images, mnist.t_train[:80]), optimizers.SGD(), batch_size=64
    )


@pytest.mark.parametrize("batch_size", [1, 2, 31, 32, 33, 600])
def test_batches_that_threads_share_unevenly(
    numba: Backend, mnist: Dataset, batch_size: int
) -> None:
    models = make_network("wide", numba), make_network("wide", numba)
    data = mnist.x_train[:1000], mnist.t_train[:1000]
    assert_compiled_matches_eager(models, data, optimizers.SGD(), batch_size=batch_size)


class StopsOften:
    """Makes the chunks of steps short."""

    every = 3

    def on_steps(self, trainer: Trainer, report: StepsReport) -> None:
        """Take part."""

    def on_epoch(self, trainer: Trainer, report: object) -> None:
        """Take part."""


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("two-layer", optimizers.Adam(lr=0.001)),
        ("lenet", optimizers.Adam(lr=0.001)),
        ("backprop", optimizers.SGD(lr=3.0, weight_decay=1e-5)),
        # On its way to 0 the rate passes where weight decay leaves half of the weights.
        ("backprop", optimizers.SGD(lr=3.0, weight_decay=0.2)),
    ],
)
def test_runs_repeat_to_the_bit_however_they_are_cut(
    numba: Backend, mnist: Dataset, tmp_path: Path, name: str, optimizer: optimizers.UpdateRule
) -> None:
    data = mnist.x_train[:596], mnist.t_train[:596]

    def start() -> Trainer:
        model = create_model(name, backend=numba)
        settings = {"batch_size": 64, "seed": 1, "schedule": "cosine", "total_steps": 20}
        return Trainer(model, optimizer, **settings)

    trainers = []
    for callbacks in ((), (StopsOften(),)):
        trainers.append(start())
        # The last batch of an epoch is too small for two threads, and is alone in a chunk.
        trainers[-1].fit(*data, epochs=2, callbacks=callbacks)
    first = start()
    first.fit(*data, iterations=7)
    save_checkpoint(tmp_path / "checkpoint", first)
    trainers.append(load_checkpoint(tmp_path / "checkpoint", backend="numba"))
    trainers[-1].fit(*data, iterations=13)
    straight = trainers[0].model.state_dict()
    for other in trainers[1:]:
        assert other.step == trainers[0].step
        for key, value in other.model.state_dict().items():
            assert np.array_equal(value, straight[key]), key


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


def test_prepared_data_belong_to_a_network(numba: Backend, mnist: Dataset) -> None:
    images, labels = mnist.x_train[:20], mnist.t_train[:20]
    one, other = (Trainer(create_model("two-layer", backend=numba)) for _ in range(2))
    with pytest.raises(ValueError, match="prepared for another network"):
        other.fit(one.prepare(images, labels), epochs=1)
    with pytest.raises(TypeError, match="leave out labels"):
        one.fit(one.prepare(images, labels), labels, epochs=1)
    with pytest.raises(TypeError, match="labels are missing"):
        one.fit(images, epochs=1)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([L.Conv2d(2, 3, stride=2), L.Flatten(), L.Linear(10)], "stride of 1, not 2"),
        ([L.Flatten(), L.Dropout(0.5), L.Linear(10)], "masks of dropout"),
    ],
)
def test_what_is_not_compiled_says_why_and_trains_all_the_same(
    numba: Backend, mnist: Dataset, row: list[layers.Layer], reason: str
) -> None:
    model = Network(row, losses.SoftmaxCrossEntropy(), input_shape=(1, 28, 28), backend=numba)
    trainer = Trainer(model, "sgd")
    assert trainer.compiled is None
    assert reason in trainer.not_compiled
    assert len(trainer.fit(mnist.x_train[:64], mnist.t_train[:64], epochs=1).losses) == 1


def test_backends_without_compiled_epochs_say_so() -> None:
    trainer = Trainer(create_model("two-layer", backend="numpy"))
    assert trainer.compiled is None
    assert "numpy has no compiled epochs" in trainer.not_compiled


def test_a_loss_that_runs_away_is_noticed(numba: Backend, mnist: Dataset) -> None:
    from mnist_accel.errors import DivergedError

    model = create_model("lenet", backend=numba)
    before = model.state_dict()
    trainer = Trainer(model, "sgd", lr=1e6, batch_size=32)
    assert trainer.compiled is not None
    with pytest.raises(DivergedError, match="first value that is not finite is in"):
        trainer.fit(mnist.x_train[:640], mnist.t_train[:640], epochs=3)
    assert all(np.isfinite(value).all() for value in model.state_dict().values())
    assert before.keys() == model.state_dict().keys()


INTERRUPTED_TRAINING = """
import numpy as np
import mnist_accel as ma
from mnist_accel.runs.signals import stop_on_signals

class Say:
    every = 0
    def on_steps(self, trainer, report):
        print("training", flush=True)
    def on_epoch(self, trainer, report):
        print("epoch", flush=True)

(images, labels), _ = ma.load_mnist(normalize=False)
images, labels = np.tile(images, (3, 1)), np.tile(labels, 3)  # an epoch takes many seconds
trainer = ma.Trainer(ma.create_model("lenet", backend="numba"))
data = trainer.prepare(images, labels)
with stop_on_signals(trainer):
    trainer.fit(data, epochs=1, callbacks=(Say(),))
print("ended", trainer.step, flush=True)
"""


def test_ctrl_c_is_answered_in_the_middle_of_an_epoch(mnist: Dataset) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED_TRAINING],
        stdout=subprocess.PIPE,
        text=True,
        # Where tests run in the background, Ctrl-C may be ignored; the child would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"  # the first chunk, of one step
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    last = process.communicate(timeout=120)[0].splitlines()[-1]
    seconds = time.monotonic() - sent
    assert last.startswith("ended"), last
    assert int(last.split()[1]) < 180_000 // 64
    assert seconds < 3  # 0.2 for the chunk; the rest is for other programs on the machine


def test_trainings_side_by_side_do_not_wait_for_each_other_for_ever(
    numba: Backend, mnist: Dataset
) -> None:
    def train(seed: int) -> float:
        model = create_model("two-layer", backend=numba, seed=seed)
        trainer = Trainer(model, "sgd", lr=0.05, batch_size=64)
        return trainer.fit(mnist.x_train[:2000], mnist.t_train[:2000], epochs=3).losses[-1]

    alone = [train(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(train, range(3))) == alone


@pytest.mark.parametrize(
    ("chosen", "batch_size", "used"), [(1, 64, 1), (3, 64, 3), (3, 10, 3), (3, 2, 2), (None, 10, 1)]
)
def test_as_many_threads_as_are_chosen(
    mnist: Dataset, monkeypatch: pytest.MonkeyPatch, chosen: int | None, batch_size: int, used: int
) -> None:
    from backends.numba.kernels import epoch

    backend = get_backend("numba", threads=chosen)
    trainer = Trainer(create_model("two-layer", backend=backend), "sgd", batch_size=batch_size)
    data = trainer.prepare(mnist.x_train[:64], mnist.t_train[:64])
    run_steps = epoch.run_steps
    seen: set[int] = set()

    def watched(thread: int, *rest: Any) -> None:
        seen.add(thread)
        run_steps(thread, *rest)

    monkeypatch.setattr(epoch, "run_steps", watched)
    trainer.fit(data, epochs=1)
    assert seen == set(range(used))


def arrays_in(arguments: Iterable[Any]) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the arrays among some arguments, and among the fields of tuples there."""
    for argument in arguments:
        if isinstance(argument, tuple):
            yield from arrays_in(argument)
        elif isinstance(argument, np.ndarray):
            yield argument


@pytest.mark.parametrize("threads", [2, 3, 4, 8])
@pytest.mark.parametrize("name", RECIPES)
def test_no_two_threads_write_to_one_cache_line(
    mnist: Dataset, monkeypatch: pytest.MonkeyPatch, name: str, threads: int
) -> None:
    """Each thread takes a step by itself, and the bytes that change are its own."""
    from backends.numba.epoch import ALL_ARE_HERE
    from backends.numba.kernels import epoch

    batch_size = 3 * threads + 1
    backend = get_backend("numba", threads=threads)
    trainer = Trainer(create_model(name, backend=backend), "adam", batch_size=batch_size)
    data = trainer.prepare(mnist.x_train[:batch_size], mnist.t_train[:batch_size])
    run_steps = epoch.run_steps
    lines: list[set[int]] = []

    def watched(thread: int, counter: Any, *rest: Any) -> None:
        if thread > 0:
            return
        *_, workspaces, losses, correct = rest
        # The sum of gradients is not looked at: it goes from thread 0 to all when they meet.
        arrays = [a for a in arrays_in(rest) if a is not workspaces.parameters]
        for array in arrays_in((workspaces, losses, correct, rest[4], rest[5])):
            array[array == 0] = 1  # so that it shows where a 0 is written
        for number in range(threads):
            before = [array.copy() for array in arrays]
            counter[0] = ALL_ARE_HERE
            run_steps(number, counter, *rest)
            lines.append(set())
            for old, new in zip(before, arrays, strict=True):
                changed = old.view(np.uint8).ravel() != new.view(np.uint8).ravel()
                lines[-1].update((new.ctypes.data + np.flatnonzero(changed)) // 64)

    monkeypatch.setattr(epoch, "run_steps", watched)
    monkeypatch.setattr(trainer, "_is_finite", lambda array: True)
    trainer.fit(data, iterations=1)
    assert len(lines) == threads
    assert all(lines)
    assert sum(map(len, lines)) == len(set().union(*lines))


def test_nobody_waits_for_a_thread_that_failed(
    mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backends.numba.backend import NumbaBackend
    from backends.numba.kernels import epoch

    two = NumbaBackend()
    two.threads = 2  # also where there is one core
    model = create_model("two-layer", backend=two)
    trainer = Trainer(model, "sgd", lr=0.05, batch_size=512)
    images, labels = mnist.x_train[:5120], mnist.t_train[:5120]
    data = trainer.prepare(images, labels)
    run_steps = epoch.run_steps
    before = model.state_dict()

    for culprit in (0, 1):

        def fail(thread: int, *rest: Any, culprit: int = culprit) -> None:
            if thread == culprit:
                raise MemoryError("no memory left")
            run_steps(thread, *rest)

        monkeypatch.setattr(epoch, "run_steps", fail)
        with pytest.raises(MemoryError, match="no memory left"):
            trainer.fit(data, epochs=1)
        assert trainer.step == 0
        assert all(np.array_equal(model.state_dict()[key], before[key]) for key in before)
    monkeypatch.undo()
    assert len(trainer.fit(data, epochs=1).losses) == 10
