"""Threads of compiled training: their number, cache lines, errors and interruption."""

import concurrent.futures
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from backends import Backend, get_backend
from backends.numba import epoch as compiled_epoch
from backends.numba import threads as worker_threads
from backends.numba.backend import NumbaBackend
from backends.numba.kernels import epoch
from backends.numba.kernels.barrier import BARRIER_OPEN
from mnist_accel import nn
from mnist_accel.data import Dataset
from mnist_accel.recipes.models import RECIPES, create_model
from mnist_accel.training.trainer import Trainer
from tests.support.compiled_training import assert_compiled_matches_eager, make_network

pytestmark = pytest.mark.usefixtures("wakes_threads")


@pytest.fixture(scope="module")
def numba() -> Backend:
    return get_backend("numba")


@pytest.mark.parametrize("batch_size", [1, 2, 31, 32, 33, 600, 900])
def test_batches_that_do_not_divide_evenly_among_threads(
    numba: Backend, mnist: Dataset, batch_size: int
) -> None:
    models = make_network("wide", numba), make_network("wide", numba)
    data = mnist.x_train[:1000], mnist.t_train[:1000]
    assert_compiled_matches_eager(models, data, nn.SGD(), batch_size=batch_size)


INTERRUPTED_TRAINING = """
import numpy as np
import mnist_accel as ma
from mnist_accel.runs.signals import stop_on_signals

class Printer:
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
    trainer.fit(data, epochs=1, callbacks=(Printer(),))
print("ended", trainer.step, flush=True)
"""


@pytest.mark.posix
def test_ctrl_c_ends_an_epoch_between_chunks(mnist: Dataset) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED_TRAINING],
        stdout=subprocess.PIPE,
        text=True,
        # If the tests run in the background, SIGINT may be ignored, and children inherit this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"  # after the first chunk, which is one step
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    last = process.communicate(timeout=120)[0].splitlines()[-1]
    seconds = time.monotonic() - sent
    assert last.startswith("ended"), last
    assert int(last.split()[1]) < 180_000 // 64
    assert seconds < 3  # a chunk takes 0.2 s, or longer if other programs run


def test_a_second_ctrl_c_does_not_leave_threads_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    presses = iter([KeyboardInterrupt, KeyboardInterrupt])

    def interrupted_wait(futures: list[Future[Any]]) -> None:
        for press in presses:
            raise press
        ended.set()
        concurrent.futures.wait(futures)

    monkeypatch.setattr(worker_threads, "wait", interrupted_wait)
    with ThreadPoolExecutor() as executor:
        other = executor.submit(ended.wait)
        with pytest.raises(KeyboardInterrupt):
            worker_threads.wait_for_all([other])
        assert other.done()


def test_concurrent_trainings_do_not_deadlock(numba: Backend, mnist: Dataset) -> None:
    def train(seed: int) -> float:
        model = create_model("two-layer", backend=numba, seed=seed)
        trainer = Trainer(model, "sgd", lr=0.05, batch_size=64)
        return trainer.fit(mnist.x_train[:2000], mnist.t_train[:2000], epochs=3).losses[-1]

    alone = [train(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(train, range(3))) == alone


@pytest.mark.parametrize(
    ("chosen", "batch_size", "used"), [(1, 64, 1), (3, 64, 3), (3, 10, 3), (3, 2, 2), (None, 7, 1)]
)
def test_number_of_threads(
    mnist: Dataset, monkeypatch: pytest.MonkeyPatch, chosen: int | None, batch_size: int, used: int
) -> None:
    backend = get_backend("numba", threads=chosen)
    trainer = Trainer(create_model("two-layer", backend=backend), "sgd", batch_size=batch_size)
    data = trainer.prepare(mnist.x_train[:64], mnist.t_train[:64])
    run_steps = epoch.run_steps
    threads: set[int] = set()

    def record_thread(thread: int, end: int, *rest: Any) -> None:
        assert end == thread + 1
        threads.add(thread)
        run_steps(thread, end, *rest)

    monkeypatch.setattr(epoch, "run_steps", record_thread)
    trainer.fit(data, epochs=1)
    assert threads == set(range(used))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", RECIPES)
def test_one_thread_computes_a_short_chunk_with_the_bits_of_all_threads(
    mnist: Dataset, monkeypatch: pytest.MonkeyPatch, name: str, optimizer: str
) -> None:
    results = []
    for limit in (0, 1 << 60):
        monkeypatch.setattr(compiled_epoch, "MIN_MULTIPLICATIONS_OF_CHUNK", limit)
        backend = NumbaBackend()
        backend.threads = 3
        model = create_model(name, backend=backend)
        trainer = Trainer(model, optimizer, batch_size=20)
        data = trainer.prepare(mnist.x_train[:50], mnist.t_train[:50])
        if limit:
            monkeypatch.setattr(backend._workers, "executor", None)  # not used
        losses = trainer.fit(data, iterations=5).losses
        results.append([losses, model.parameters.flat, *trainer.optimizer_state.values()])
    for together, alone in zip(*results, strict=True):
        assert np.array_equal(together, alone)


def arrays_in(arguments: Iterable[Any]) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the arrays among the arguments, also those in nested tuples."""
    for argument in arguments:
        if isinstance(argument, tuple):
            yield from arrays_in(argument)
        elif isinstance(argument, np.ndarray):
            yield argument


@pytest.mark.parametrize("threads", [2, 3, 4, 8])
@pytest.mark.parametrize("name", RECIPES)
def test_threads_do_not_share_cache_lines(
    mnist: Dataset, monkeypatch: pytest.MonkeyPatch, name: str, threads: int
) -> None:
    """Run the threads of a step one after another; no cache line may be changed by two of them."""
    batch_size = 3 * threads + 1
    backend = get_backend("numba", threads=threads)
    trainer = Trainer(create_model(name, backend=backend), "adam", batch_size=batch_size)
    data = trainer.prepare(mnist.x_train[:batch_size], mnist.t_train[:batch_size])
    assert trainer.compiled is not None
    linked = data.for_epoch(trainer.compiled).linked
    run_steps = epoch.run_steps
    lines: list[set[int]] = []

    def run_threads_in_turn(thread: int, end: int, counter: Any, *rest: Any) -> None:
        if thread > 0:
            return  # thread 0 runs the steps of all threads
        # The gradients are not compared: after the barrier, each thread writes its range of the sum
        # of all gradients to row 0.
        buffers = linked.workspace._replace(parameters=None)
        written = [linked.packed, linked.state, *linked.results, *arrays_in(buffers)]
        for array in written:
            array[array == 0] = 1  # so that writing a 0 is a change
        arrays = [*arrays_in(rest), *written]
        for number in range(threads):
            before = [array.copy() for array in arrays]
            counter[0] = BARRIER_OPEN
            run_steps(number, number + 1, counter, *rest)
            lines.append(set())
            for old, new in zip(before, arrays, strict=True):
                changed = old.view(np.uint8).ravel() != new.view(np.uint8).ravel()
                lines[-1].update((new.ctypes.data + np.flatnonzero(changed)) // 64)

    monkeypatch.setattr(epoch, "run_steps", run_threads_in_turn)
    monkeypatch.setattr("mnist_accel.training.chunks.is_finite", lambda backend, tensor: True)
    trainer.fit(data, iterations=1)
    assert len(lines) == threads
    assert all(lines)
    assert sum(map(len, lines)) == len(set().union(*lines))


def test_threads_do_not_wait_for_a_thread_that_failed(
    mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = NumbaBackend()
    backend.threads = 2  # even if the machine has one core
    model = create_model("two-layer", backend=backend)
    trainer = Trainer(model, "sgd", lr=0.05, batch_size=512)
    images, labels = mnist.x_train[:5120], mnist.t_train[:5120]
    data = trainer.prepare(images, labels)
    run_steps = epoch.run_steps
    before = model.state_dict()

    for failing in (0, 1):

        def fail(thread: int, *rest: Any, failing: int = failing) -> None:
            if thread == failing:
                raise MemoryError("no memory left")
            run_steps(thread, *rest)

        monkeypatch.setattr(epoch, "run_steps", fail)
        with pytest.raises(MemoryError, match="no memory left"):
            trainer.fit(data, epochs=1)
        assert trainer.step == 0
        assert all(np.array_equal(model.state_dict()[key], before[key]) for key in before)
    monkeypatch.undo()
    assert len(trainer.fit(data, epochs=1).losses) == 10
