"""Small batches train on one thread or on all, whichever is faster, with the same results."""

from itertools import cycle
from typing import Any

import numpy as np
import pytest

from backends.numba import epoch
from backends.numba.backend import NumbaBackend
from backends.numba.faster_way import LAST_INTERVAL, FasterWay
from backends.numba.kernels import epoch as kernels
from backends.numba.threads import training_threads
from mnist_accel.data import Dataset
from mnist_accel.recipes.models import create_model
from mnist_accel.training.trainer import Trainer


def run_chunks(way: FasterWay, seconds: dict[int, float], chunks: int) -> list[int]:
    """Return how many threads compute each of some chunks, whose steps take `seconds`."""
    chosen = []
    for _ in range(chunks):
        chosen.append(way.choose())
        way.add(chosen[-1], seconds[chosen[-1]])
    return chosen


def test_both_ways_are_measured_before_the_faster_one_is_used() -> None:
    assert run_chunks(FasterWay(2), {1: 5.0, 2: 4.0}, 5) == [2, 1, 2, 1, 2]
    assert run_chunks(FasterWay(3), {1: 3.0, 3: 4.0}, 5) == [3, 1, 3, 1, 1]


def test_the_slower_way_is_measured_again_at_growing_intervals() -> None:
    chosen = run_chunks(FasterWay(2), {1: 5.0, 2: 4.0}, 4 + 2 + 4 + 8 + 3 * LAST_INTERVAL)
    measured = [number for number, way in enumerate(chosen[4:], 1) if way == 1]
    assert measured == [2, 6, 14, 30, 46, 62]


@pytest.mark.parametrize("chunks_before", [0, 100])
def test_a_disturbance_of_four_chunks_matters_for_twelve_more(chunks_before: int) -> None:
    way = FasterWay(2)
    run_chunks(way, {1: 5.0, 2: 4.0}, chunks_before)
    assert 1 in run_chunks(way, {1: 5.0, 2: 9.0}, 4)[2:]
    # From then on, one thread is only measured.
    assert run_chunks(way, {1: 5.0, 2: 4.0}, 32)[12:].count(1) <= 4


def test_the_way_changes_if_the_other_becomes_faster() -> None:
    way = FasterWay(2)
    assert run_chunks(way, {1: 5.0, 2: 4.0}, 8)[-1] == 2
    assert run_chunks(way, {1: 5.0, 2: 9.0}, 8)[-1] == 1  # the cores became far from each other
    later = run_chunks(way, {1: 5.0, 2: 4.0}, 3 * LAST_INTERVAL)
    assert later[-1] == 2


def test_a_slow_first_chunk_changes_nothing() -> None:
    way = FasterWay(2)
    run_chunks(way, {2: 20.0}, 1)
    assert run_chunks(way, {1: 5.0, 2: 4.0}, 8) == [1, 2, 1, 2, 1, 2, 2, 2]


def test_one_slow_chunk_changes_nothing() -> None:
    way = FasterWay(2)
    run_chunks(way, {1: 5.0, 2: 4.0}, 10)  # the next measurement of one thread is the 14th
    assert run_chunks(way, {1: 5.0, 2: 400.0}, 1) == [2]
    assert run_chunks(way, {1: 5.0, 2: 4.0}, 4) == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("images", "chosen", "max_threads", "threads"),
    [(7, None, 8, 1), (8, None, 8, 2), (8, None, 1, 1), (31, None, 8, 2), (64, None, 8, 4),
     (64, None, 2, 2), (10, 1, 8, 1), (10, 4, 8, 4), (2, 4, 8, 2)],
)  # fmt: skip
def test_threads_of_a_step(images: int, chosen: int | None, max_threads: int, threads: int) -> None:
    assert training_threads(images, chosen=chosen, max_threads=max_threads) == threads


def test_a_training_is_divided_among_two_threads_from_8_images(mnist: Dataset) -> None:
    threads = []
    for batch_size in (7, 8):
        backend = NumbaBackend()
        backend._max_threads = 2
        trainer = Trainer(create_model("two-layer", backend=backend), "sgd", batch_size=batch_size)
        data = trainer.prepare(mnist.x_train[:64], mnist.t_train[:64])
        trainer.fit(data, epochs=1)
        assert trainer.compiled is not None
        workspace = data.for_epoch(trainer.compiled).linked.workspace
        assert workspace is not None
        threads.append(len(workspace.parameters))
    assert threads == [1, 2]


@pytest.mark.parametrize("name", ["backprop", "two-layer", "cnn"])
def test_results_do_not_depend_on_the_way(
    mnist: Dataset, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The chunks of one training alternate between both ways; those of the others do not."""
    monkeypatch.setattr(epoch, "MIN_MULTIPLICATIONS_OF_CHUNK", 0)
    run_steps = kernels.run_steps
    results: list[list[Any]] = []
    for ways in ([1], [2], [1, 2]):
        used: set[int] = set()

        def record(first: int, end: int, *rest: Any, used: set[int] = used) -> None:
            used.add(2 if end - first == 1 else 1)
            run_steps(first, end, *rest)

        monkeypatch.setattr(kernels, "run_steps", record)
        turns = cycle(ways)
        monkeypatch.setattr(FasterWay, "choose", lambda self, turns=turns: next(turns))
        backend = NumbaBackend()
        backend.threads = 2
        trainer = Trainer(create_model(name, backend=backend), "sgd", batch_size=10)
        data = trainer.prepare(mnist.x_train[:40], mnist.t_train[:40])
        used.clear()
        losses = [trainer.fit(data, epochs=1).losses for _ in range(6)]
        assert used == set(ways)
        results.append([losses, trainer.model.parameters.flat])
    for losses, parameters in results[1:]:
        assert losses == results[0][0]
        assert np.array_equal(parameters, results[0][1])
