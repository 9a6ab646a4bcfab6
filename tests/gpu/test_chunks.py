"""Chunks of graph steps: their length, what they copy, and what happens on errors."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from backends import Backend
from backends.cupy import graph
from backends.cupy import workspace as cupy_workspace
from mnist_accel.data import Dataset
from mnist_accel.errors import DivergedError
from mnist_accel.nn import SGD, layers, losses
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.network import Network
from mnist_accel.recipes.models import create_model
from mnist_accel.training.trainer import Trainer
from tests.support.closeness import assert_same_bits
from tests.support.cuda_emulator.emulated_cupy import DeviceMemory, EmulatedCupy, Stream
from tests.support.cuda_emulator.raw_module import RawKernel
from tests.support.emulated_backend import EmulatedBackend
from tests.support.gpu_training import emulated_and_cupy, small_cnn, small_mlp

pytestmark = pytest.mark.emulated
L = layers


def train(backend: Backend, mnist: Dataset) -> list[Any]:
    """Train a network that launches most kernels; return its losses and weights."""
    stack = [L.Conv2d(2, 5), L.MaxPool2d(), L.AvgPool2d(), L.ReLU(), L.MaxPool2d(3, stride=1)]
    stack += [L.Flatten(), L.Linear(6), L.Tanh(), L.Linear(10)]
    model = Network(stack, losses.SoftmaxCrossEntropy(), input=Pixels((1, 28, 28)), backend=backend)
    trainer = Trainer(model, "adam", batch_size=4, seed=1)
    history = trainer.fit(mnist.x_train[:15], mnist.t_train[:15], epochs=2)
    return [history.losses, *model.state_dict().values()]


@emulated_and_cupy
def test_lengths_of_chunks_and_graphs_do_not_change_a_bit(
    backend: Backend, mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_accel.training.trainer.CHUNK_SECONDS", 600)  # emulation is slow
    expected = train(backend, mnist)
    for chunk_steps, graph_steps in ((3, (2, 1)), (1, (1,)), (100, (5, 2, 1))):
        monkeypatch.setattr(cupy_workspace, "MAX_STEPS_PER_CHUNK", chunk_steps)
        monkeypatch.setattr(graph, "GRAPH_STEPS", graph_steps)
        assert_same_bits(train(backend, mnist), expected)


@emulated_and_cupy
def test_full_length_graphs_and_single_steps_match_eager_training(
    backend: Backend, mnist: Dataset
) -> None:
    batch_size = 3 if isinstance(backend, EmulatedBackend) else 64
    data = mnist.x_train[: 100 * batch_size], mnist.t_train[: 100 * batch_size]
    results = []
    for compiled in (True, False):
        model = create_model(
            "two-layer", backend=backend, seed=3, dtype="float64", hidden_sizes=(7,)
        )
        trainer = Trainer(model, "adam", batch_size=batch_size, seed=5, compiled=compiled)
        history = trainer.fit(*data, iterations=2 * graph.GRAPH_STEPS[0] + 9)
        results.append([history.losses, *model.state_dict().values()])
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("steps", "launches"),
    [(1024, [32] * 32), (40, [32, 8]), (47, [32, 8] + [1] * 7), (3, [1, 1, 1])],
)
def test_the_rest_of_a_chunk_takes_few_graphs(steps: int, launches: list[int]) -> None:
    launched: list[int] = []

    def replayed(length: int) -> SimpleNamespace:
        return SimpleNamespace(launch=lambda stream: launched.append(length))

    graphs = {length: replayed(length) for length in graph.GRAPH_STEPS}
    graph.Captured(step=cast(Any, None), graphs=graphs).replay(steps, stream=None)
    assert launched == launches


def test_graphs_are_captured_again_for_larger_batches(
    emulated: EmulatedBackend, mnist: Dataset
) -> None:
    models = [create_model("two-layer", backend=emulated, hidden_sizes=(5,)) for _ in range(2)]
    trainers = [
        Trainer(model, "adam", compiled=compiled)
        for model, compiled in zip(models, (True, False), strict=True)
    ]
    for batch_size, images in ((3, 7), (5, 9), (2, 4)):
        for trainer in trainers:
            trainer.batch_size = batch_size
            part = slice(images, 2 * images)
            trainer.fit(mnist.x_train[part], mnist.t_train[part], epochs=1)
    for key, weight in models[1].state_dict().items():
        np.testing.assert_allclose(models[0].state_dict()[key], weight, rtol=1e-3, atol=1e-6)


def test_graphs_use_the_data_of_the_current_call(emulated: EmulatedBackend, mnist: Dataset) -> None:
    """The data sets have the same shape; the third equals the first."""
    results = []
    for compiled in (True, False):
        model = create_model("two-layer", backend=emulated, hidden_sizes=(5,), dtype="float64")
        trainer = Trainer(model, "adam", batch_size=4, compiled=compiled)
        losses = []
        for part in (slice(0, 8), slice(8, 16), slice(0, 8)):
            losses += trainer.fit(mnist.x_train[part], mnist.t_train[part], epochs=1).losses
        results.append(losses)
    np.testing.assert_allclose(*results, rtol=1e-9)


def test_failed_capture_raises_the_error_of_the_launch(
    mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed launch also makes the end of the capture fail; that error would hide the cause."""
    backend = EmulatedBackend()
    trainer = Trainer(create_model("two-layer", backend=backend, hidden_sizes=(5,)), "adam")

    def fail(kernel: RawKernel, *args: Any) -> None:
        if backend.emulator.captured is not None:
            raise RuntimeError("the launch has failed")

    def end_capture(stream: Stream) -> None:
        backend.emulator.captured = None
        raise RuntimeError("the capture was invalidated")

    monkeypatch.setattr(RawKernel, "__call__", fail)
    monkeypatch.setattr(Stream, "end_capture", end_capture)
    with pytest.raises(RuntimeError, match="the launch has failed"):
        trainer.fit(mnist.x_train[:20], mnist.t_train[:20], iterations=1)
    assert backend.emulator.captured is None


def test_interrupted_chunk_leaves_the_weights_unchanged(
    mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = EmulatedBackend()
    model = create_model("two-layer", backend=backend, hidden_sizes=(5,))
    trainer = Trainer(model, "sgd", batch_size=2)
    data = trainer.prepare(mnist.x_train[:6], mnist.t_train[:6])
    trainer.fit(data, epochs=1)
    before = model.state_dict()

    def interrupt(memory: DeviceMemory, mem: int, size: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DeviceMemory, "copy_to_host_async", interrupt)
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(data, epochs=1)
    assert_same_bits(list(model.state_dict().values()), list(before.values()))


@pytest.mark.parametrize(
    ("kind", "batch_size", "launches"),
    [("graph", 17, 3 * 2), ("persistent_mlp", 5, 1), ("persistent_cnn", 1, 1)],
)
def test_chunk_copies_once_each_way_and_waits_only_at_its_ends(
    mnist: Dataset, kind: str, batch_size: int, launches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_accel.training.trainer.CHUNK_SECONDS", 600)  # emulation is slow
    backend = EmulatedBackend()
    is_cnn = kind == "persistent_cnn"
    model = small_cnn(backend, filters=2) if is_cnn else small_mlp(backend)
    trainer = Trainer(model, "sgd", batch_size=batch_size)
    images = batch_size * 3
    data = trainer.prepare(mnist.x_train[:images], mnist.t_train[:images])
    trainer.fit(data, epochs=1)  # allocates memory and captures the graphs
    calls: list[str] = []
    for owner, names in (
        (EmulatedCupy, ("array", "asarray", "zeros", "empty", "asnumpy")),
        (DeviceMemory, ("copy_from_host_async", "copy_to_host_async")),
        (Stream, ("synchronize", "begin_capture")),
        (backend._cupy.cuda.runtime, ("deviceSynchronize", "memGetInfo")),
        (RawKernel, ("_launch",)),
    ):
        for name in names:
            monkeypatch.setattr(owner, name, recording(calls, name, getattr(owner, name)))
    trainer.fit(data, epochs=1)
    assert calls == [
        "synchronize",  # work on other streams may have changed the parameters
        "_launch",  # order of the images
        "copy_from_host_async",  # first position of each batch; learning rates
        *["_launch"] * launches,
        "copy_to_host_async",  # losses; numbers of correct images; whether all weights are finite
        "synchronize",
        "synchronize",  # needed only after an interrupt
    ]


@pytest.mark.parametrize("kind", ["graph", "persistent_mlp", "persistent_cnn"])
def test_update_that_makes_a_weight_infinite_is_reported(mnist: Dataset, kind: str) -> None:
    """The loss of its step is finite, and there is no further step."""
    backend = EmulatedBackend()
    is_cnn = kind == "persistent_cnn"
    model = small_cnn(backend, filters=2) if is_cnn else small_mlp(backend)
    batch_size = {"graph": 17, "persistent_mlp": 5, "persistent_cnn": 1}[kind]
    rate = 3e38 if is_cnn else 1e308  # the largest numbers of the dtypes are little larger
    trainer = Trainer(model, SGD(lr=rate, weight_decay=10.0), batch_size=batch_size)
    assert trainer.compiled is not None
    run, results = trainer.compiled.run, []

    def spy(*args: Any) -> Any:
        results.append(run(*args))
        return results[0]

    trainer.compiled.run = spy  # type: ignore[method-assign]
    with pytest.raises(DivergedError):
        trainer.fit(mnist.x_train[:batch_size], mnist.t_train[:batch_size], iterations=1)
    assert np.isfinite(results[0].losses).all()
    assert not results[0].is_finite


def test_full_batches_share_the_rows_of_a_chunk(
    mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk has room for the images of one batch, but for many steps."""
    monkeypatch.setattr("mnist_accel.training.trainer.CHUNK_SECONDS", 600)  # emulation is slow
    monkeypatch.setattr(cupy_workspace, "MAX_ROWS_PER_CHUNK", 17)
    backend = EmulatedBackend()
    results = []
    for compiled in (True, False):
        model = create_model("two-layer", backend=backend, hidden_sizes=(5,), dtype="float64")
        trainer = Trainer(model, "adam", batch_size=17, sampling="full", compiled=compiled)
        data = trainer.prepare(mnist.x_train[:17], mnist.t_train[:17])
        trainer.fit(data, iterations=1)
        backend.emulator.launched.clear()
        results.append(trainer.fit(data, iterations=5).losses)
        if compiled:
            assert backend.emulator.launched.count("order") == 1
    np.testing.assert_allclose(*results, rtol=1e-9)


def recording(calls: list[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that appends its name to a list and then calls another function."""

    def call(*args: Any, **options: Any) -> Any:
        calls.append(name)
        return function(*args, **options)

    return call
