"""Compiled epochs of the CuPy adapter do what the same steps do one operation at a time.

They are graphs of captured steps, or one kernel that does many steps of few images.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import Backend, Ties
from backends.cupy import epoch as cupy_epoch
from backends.cupy import workspace as cupy_workspace
from backends.cupy.launch import fused_classifier as head
from backends.cupy.launch import launches, tiles
from backends.cupy.launch import wgrad_update as descent
from backends.cupy.loader import Kernels
from mnist_accel.data import Dataset
from mnist_accel.errors import DivergedError
from mnist_accel.nn import layers, losses, optimizers
from mnist_accel.nn.network import Network
from mnist_accel.recipes.models import RECIPES, create_model
from mnist_accel.training.trainer import Trainer
from tests.support.closeness import assert_same_bits
from tests.support.compiled_training import (
    NETWORKS,
    OPTIMIZERS,
    assert_compiled_matches_eager,
    make_network,
)
from tests.support.cuda_emulator.cupy import EmulatedCupy, Stream
from tests.support.cuda_emulator.module import Device, RawKernel, ThreadOrder
from tests.support.emulated_backend import EmulatedBackend

PAGE = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.emulated
L = layers


@pytest.fixture(scope="module")
def emulated() -> EmulatedBackend:
    return EmulatedBackend()


def assert_tiers_agree(*args: Any, steps: int = 4, **options: Any) -> None:
    """Compare after a few steps: enough for a smaller batch and a second epoch, fast to emulate."""
    assert_compiled_matches_eager(*args, steps=steps, **options)


# Where there is a GPU, real graphs are captured as well.
emulated_and_real = pytest.mark.parametrize(
    "backend", [EmulatedBackend.name, pytest.param("cupy", marks=pytest.mark.gpu)], indirect=True
)


def twins(row: list[L.Layer], side: int, backend: Backend) -> tuple[Network, Network]:
    """Two networks with the same weights, for small images."""
    settings = {"input_shape": (1, side, side), "backend": backend, "dtype": "float64"}
    loss = losses.SoftmaxCrossEntropy()
    return Network(row, loss, **settings), Network(row, loss, **settings)


# Images of a batch: on a GPU, and where threads are emulated, which is slow. Of few images there
# are kernels that do all steps in one launch.
BATCHES = [
    ("fcnn", 500, 5),
    ("two-layer", 512, 17),
    ("backprop", 10, 10),
    ("backprop", 64, 17),
    ("cnn", 1, 1),
    ("cnn", 64, 2),
    ("three-layer", 64, 17),
    ("lenet", 64, 2),
    ("fast99", 64, 2),
]


@emulated_and_real
@pytest.mark.parametrize(("name", "real", "emulated"), BATCHES)
def test_steps_of_every_recipe(
    backend: Backend,
    mnist: Dataset,
    name: str,
    real: int,
    emulated: int,
) -> None:
    recipe = RECIPES[name]
    batch_size = emulated if isinstance(backend, EmulatedBackend) else real
    models = tuple(create_model(name, backend=backend, seed=3) for _ in range(2))
    count = max(3, batch_size * 2 - 1)  # the last batch of an epoch is smaller
    optimizer = optimizers.create_optimizer(recipe.optimizer, lr=recipe.lr)
    if isinstance(optimizer, optimizers.Adam):
        # With its eps of 1e-8, the rounding of a gradient near 0 becomes a step of its own.
        optimizer = replace(optimizer, eps=1e-3)
    assert_tiers_agree(
        models,  # type: ignore[arg-type]
        (mnist.x_train[:count], mnist.t_train[:count]),
        optimizer,
        batch_size=batch_size,
        sampling=recipe.sampling,
        steps=10,
    )


@pytest.mark.parametrize("order", ThreadOrder)
def test_ten_steps_of_pooled_convolutions(mnist: Dataset, order: ThreadOrder) -> None:
    backend = EmulatedBackend(Device(order, seed=7))
    row = [L.Conv2d(3, 3), L.ReLU(), L.MaxPool2d(), L.Conv2d(4, 2), L.ReLU(), L.MaxPool2d()]
    row += [L.Flatten(), L.Linear(6), L.ReLU(), L.Linear(10)]
    models = twins(row, 12, backend)
    data = np.ascontiguousarray(mnist.x_train[:11, 8:20, 8:20]), mnist.t_train[:11]
    assert_tiers_agree(models, data, optimizers.Adam(), batch_size=4, steps=10)


def small_convolutions(backend: Backend) -> tuple[Network, Network]:
    row = [L.Conv2d(4, 3, padding=1), L.ReLU(), L.MaxPool2d(), L.Conv2d(6, 2), L.Tanh()]
    row += [L.Flatten(), L.Linear(40), L.ReLU(), L.Linear(10)]
    return twins(row, 8, backend)


@pytest.mark.parametrize("order", ThreadOrder)
def test_blocks_that_share_out_the_images_of_a_layer(
    mnist: Dataset, order: ThreadOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of them have none: there are more shares than images in the last batch."""
    shares = []

    def note(layers: Sequence[descent.Layer]) -> Any:
        shares.extend(layer.cut.shares for layer in layers)
        return as_argument(layers)

    as_argument = descent.as_argument
    monkeypatch.setattr(descent, "FEWEST_TERMS", 1)
    monkeypatch.setattr(descent, "as_argument", note)
    backend = EmulatedBackend(Device(order, seed=3))
    models = small_convolutions(backend)
    data = np.ascontiguousarray(mnist.x_train[:9, 8:16, 8:16]), mnist.t_train[:9]
    assert_tiers_agree(models, data, optimizers.Adam(), batch_size=7)
    assert set(shares) == {7}


def test_threads_that_have_several_filters(
    emulated: EmulatedBackend, mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they compute is the same to the bit."""
    data = np.ascontiguousarray(mnist.x_train[:9, 8:16, 8:16]), mnist.t_train[:9]
    found = []
    for wanted in (launches.WANTED_THREADS, 1):
        monkeypatch.setattr(launches, "WANTED_THREADS", wanted)
        model, _ = small_convolutions(emulated)
        history = Trainer(model, "adam", batch_size=5, seed=1).fit(*data, epochs=1)
        found.append([history.losses, *model.state_dict().values()])
    assert_same_bits(*found)


@pytest.mark.parametrize("order", ThreadOrder)
def test_several_convolutions_on_the_way_back_of_the_head(
    mnist: Dataset, order: ThreadOrder
) -> None:
    backend = EmulatedBackend(Device(order, seed=5))
    row = [L.Conv2d(3, 2), L.ReLU(), L.Conv2d(2, 2), L.Tanh(), L.MaxPool2d(), L.Conv2d(4, 2)]
    models = twins([*row, L.ReLU(), L.Flatten(), L.Linear(10)], 8, backend)
    data = np.ascontiguousarray(mnist.x_train[:7, 8:16, 8:16]), mnist.t_train[:7]
    backend.emulator.launched.clear()
    assert_tiers_agree(models, data, optimizers.SGD(lr=0.05), batch_size=4)  # type: ignore[arg-type]
    assert "head" in backend.emulator.launched


def test_what_is_not_a_number_stays_so(emulated: EmulatedBackend, mnist: Dataset) -> None:
    """Past maxima and activations, in graphs and in a kernel that stays."""
    for model, batch_size in (
        (small_convolutions(emulated)[0], 3),
        (small_cnn(emulated, L.ReLU(), filters=2), 1),
    ):
        model.parameters.flat[0] = np.nan  # a tap of a filter
        trainer = Trainer(model, "sgd", batch_size=batch_size)
        assert trainer.compiled is not None
        run, found = trainer.compiled.run, []

        def note(*args: Any, run: Any = run, found: list[Any] = found) -> Any:
            losses, correct = run(*args)
            found.append(losses[0])
            return losses, correct

        trainer.compiled.run = note  # type: ignore[method-assign]
        side = model.input_shape[-1]
        images = np.ascontiguousarray(mnist.x_train[:3, :side, :side])
        with pytest.raises(DivergedError):
            trainer.fit(images, mnist.t_train[:3], epochs=1)
        assert np.isnan(found[0])


@pytest.mark.parametrize(
    "row",
    [
        pytest.param([L.Conv2d(10, 2), L.AvgPool2d(7)], id="averages"),
        pytest.param([L.Conv2d(4, 3), L.ReLU(), L.MaxPool2d(), L.Conv2d(10, 3)], id="filters"),
        pytest.param([L.AvgPool2d(), L.Tanh(), L.Conv2d(10, 4)], id="an activation alone"),
    ],
)
def test_networks_without_a_linear_layer(
    emulated: EmulatedBackend, mnist: Dataset, row: list[L.Layer]
) -> None:
    models = twins([*row, L.Flatten()], 8, emulated)
    data = np.ascontiguousarray(mnist.x_train[:9, 8:16, 8:16]), mnist.t_train[:9]
    assert_tiers_agree(models, data, optimizers.SGD(lr=0.02), batch_size=4)  # type: ignore[arg-type]


# What these do, the others do too, with fewer threads to emulate.
SLOW = {"many channels", "narrow maps", "filters that leave one column", "wide"}


@emulated_and_real
@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - SLOW))
def test_networks_of_ones_own(backend: Backend, mnist: Dataset, name: str) -> None:
    models = make_network(name, backend), make_network(name, backend)
    data = mnist.x_train[:11], mnist.t_train[:11]
    assert_tiers_agree(models, data, optimizers.SGD(lr=0.02), batch_size=4)


@emulated_and_real
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(backend: Backend, mnist: Dataset, name: str) -> None:
    models = make_network("two activations", backend), make_network("two activations", backend)
    data = mnist.x_train[:19], mnist.t_train[:19]
    assert_tiers_agree(models, data, OPTIMIZERS[name], batch_size=8)


@emulated_and_real
@pytest.mark.parametrize("loss", [losses.BinaryCrossEntropy(), losses.Quadratic()])
def test_every_loss(backend: Backend, mnist: Dataset, loss: losses.Loss) -> None:
    row = [L.Linear(12), L.ReLU(), L.Linear(10), L.Tanh()]
    models = tuple(
        Network(row, loss, input_shape=(784,), backend=backend, dtype="float64") for _ in range(2)
    )
    data = mnist.x_train[:19], mnist.t_train[:19]
    assert_tiers_agree(models, data, optimizers.SGD(lr=0.05), batch_size=8)  # type: ignore[arg-type]


@emulated_and_real
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "loss", [losses.SoftmaxCrossEntropy(), losses.BinaryCrossEntropy(), losses.Quadratic()]
)
def test_every_loss_behind_a_linear_layer(
    backend: Backend, mnist: Dataset, loss: losses.Loss, bias: bool
) -> None:
    row = [L.Linear(12), L.Sigmoid(), L.Linear(10, bias=bias)]
    models = tuple(
        Network(row, loss, input_shape=(784,), backend=backend, dtype="float64") for _ in range(2)
    )
    data = mnist.x_train[:19], mnist.t_train[:19]
    if isinstance(backend, EmulatedBackend):
        backend.emulator.launched.clear()
    assert_tiers_agree(models, data, optimizers.Adam(lr=0.01), batch_size=8)  # type: ignore[arg-type]
    if isinstance(backend, EmulatedBackend):
        assert "head" in backend.emulator.launched


def test_many_classes_have_a_loss_of_their_own(emulated: EmulatedBackend, mnist: Dataset) -> None:
    row = [L.Linear(6), L.ReLU(), L.Linear(33)]
    models = tuple(
        Network(row, losses.SoftmaxCrossEntropy(), input_shape=(784,), backend=emulated)
        for _ in range(2)
    )
    data = mnist.x_train[:9], mnist.t_train[:9]
    emulated.emulator.launched.clear()
    assert_tiers_agree(models, data, optimizers.Adam(), batch_size=4)  # type: ignore[arg-type]
    assert "head" not in emulated.emulator.launched


@emulated_and_real
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float_images(backend: Backend, mnist: Dataset, dtype: str) -> None:
    models = make_network("one layer", backend, dtype), make_network("one layer", backend, dtype)
    images = mnist.x_train[:19] / np.float64(255)
    assert_tiers_agree(models, (images, mnist.t_train[:19]), optimizers.SGD(), batch_size=8)


def train(backend: Backend, mnist: Dataset) -> list[Any]:
    """Train a network with most sorts of kernels; return its weights and losses."""
    row = [L.Conv2d(2, 5), L.MaxPool2d(), L.AvgPool2d(), L.ReLU(), L.MaxPool2d(3, stride=1)]
    row += [L.Flatten(), L.Linear(6), L.Tanh(), L.Linear(10)]
    model = Network(row, losses.SoftmaxCrossEntropy(), input_shape=(1, 28, 28), backend=backend)
    trainer = Trainer(model, "adam", batch_size=4, seed=1)
    history = trainer.fit(mnist.x_train[:30], mnist.t_train[:30], epochs=1)
    return [history.losses, *model.state_dict().values()]


@emulated_and_real
def test_results_do_not_depend_on_how_steps_are_cut(
    backend: Backend, mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(backend, mnist)
    for section, graph in ((3, 2), (1, 1), (100, 5)):
        monkeypatch.setattr(cupy_workspace, "MOST_STEPS_A_SECTION", section)
        monkeypatch.setattr(cupy_epoch, "STEPS_A_GRAPH", graph)
        assert_same_bits(train(backend, mnist), expected)


@emulated_and_real
def test_graphs_of_many_steps(backend: Backend, mnist: Dataset) -> None:
    """As long as they are, and some single steps after them."""
    batch_size = 3 if isinstance(backend, EmulatedBackend) else 64
    found = []
    for compiled in (True, False):
        model = create_model(
            "two-layer", backend=backend, seed=3, dtype="float64", hidden_sizes=(7,)
        )
        trainer = Trainer(model, "adam", batch_size=batch_size, seed=5, compiled=compiled)
        data = mnist.x_train[: 100 * batch_size], mnist.t_train[: 100 * batch_size]
        history = trainer.fit(*data, iterations=2 * cupy_epoch.STEPS_A_GRAPH + 9)
        found.append([history.losses, *model.state_dict().values()])
    for got, want in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9)


@emulated_and_real
@pytest.mark.parametrize("images", [1, 2, 4, 8, 0])
def test_linear_layers_at_the_end(
    backend: Backend, mnist: Dataset, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As wide as every way to share out their columns; each has an activation of its own.

    A block takes so many images through them; 0: each layer has a launch of its own.
    """
    monkeypatch.setattr(head, "WANTED_BLOCKS", 1)
    monkeypatch.setattr(head, "MOST_IMAGES", images or 1)
    if images == 0:
        monkeypatch.setattr(cupy_workspace, "MOST_WEIGHTS", 0)
    row = [L.Linear(5), L.ReLU(), L.Linear(600), L.Tanh(), L.Linear(70), L.Sigmoid()]
    row += [L.Linear(3, bias=False), L.Linear(33), L.Tanh(), L.Linear(10)]
    models = tuple(
        Network(
            *(row, losses.SoftmaxCrossEntropy()),
            input_shape=(784,),
            backend=backend,
            dtype="float64",
        )
        for _ in range(2)
    )
    data = mnist.x_train[:13], mnist.t_train[:13]
    if isinstance(backend, EmulatedBackend):
        backend.emulator.launched.clear()
    assert_tiers_agree(models, data, optimizers.SGD(lr=0.05), batch_size=9)  # type: ignore[arg-type]
    if isinstance(backend, EmulatedBackend):
        assert ("linear_backward_x" in backend.emulator.launched) == (images == 0)


WIDE = [L.Linear(70), L.Tanh(), L.Linear(129, bias=False), L.ReLU(), L.Linear(65), L.Sigmoid()]
FILTERS = [L.Conv2d(2, 5), L.MaxPool2d(), L.Conv2d(3, 5), L.ReLU(), L.MaxPool2d(), L.Flatten()]


@emulated_and_real
@pytest.mark.parametrize(
    ("row", "most_weights", "expected"),
    [
        pytest.param(WIDE, 0, {"linear", "linear_backward_x", "descend"}, id="each by itself"),
        pytest.param(WIDE, 1 << 16, {"linear", "head", "descend"}, id="in the head"),
        pytest.param([*FILTERS, L.Linear(70), L.Tanh()], 1 << 16, {"descend"}, id="filters first"),
    ],
)
def test_large_matrices_are_computed_by_large_tiles(
    backend: Backend,
    mnist: Dataset,
    row: list[L.Layer],
    most_weights: int,
    expected: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of which the last ones are not full; several blocks share out the images of a layer."""
    monkeypatch.setattr(tiles, "FEWEST_LARGE", 2)
    monkeypatch.setattr(descent, "FEWEST_TERMS", 7)
    monkeypatch.setattr(cupy_workspace, "MOST_WEIGHTS", most_weights)
    found = []

    def note(kernels: Kernels, file: str, name: str, **constants: Any) -> Any:
        found.extend((name, value) for key, value in constants.items() if key == "SIDE")
        return get(kernels, file, name, **constants)

    get = Kernels.get
    monkeypatch.setattr(Kernels, "get", note)
    models = tuple(
        Network(
            *([*row, L.Linear(10)], losses.SoftmaxCrossEntropy()),
            input_shape=(784,) if row is WIDE else (1, 28, 28),
            backend=backend,
        )
        for _ in range(2)
    )
    data = mnist.x_train[:57], mnist.t_train[:57]
    assert_tiers_agree(models, data, optimizers.SGD(lr=0.05), batch_size=34)  # type: ignore[arg-type]
    assert {side for _, side in found} == {8}
    assert {name for name, _ in found} == expected


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_has_as_many_launches_as_the_page_says(
    mnist: Dataset, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulated = EmulatedBackend()
    launched = emulated.emulator.launched

    def note(kernel: RawKernel, *arguments: Any, **options: Any) -> None:
        launched.append(kernel.name)

    monkeypatch.setattr(RawKernel, "_launch", note)  # what they compute, other tests show
    monkeypatch.setattr(EmulatedCupy, "empty", EmulatedCupy.zeros)
    batch_size = 2 if "conv2d" in create_model(name, backend="numpy").kinds else 17
    trainer = Trainer(
        create_model(name, backend=emulated), RECIPES[name].optimizer, batch_size=batch_size
    )
    data = trainer.prepare(mnist.x_train[:batch_size], mnist.t_train[:batch_size])
    trainer.fit(data, iterations=1)
    launched.clear()
    trainer.fit(data, iterations=2)  # captured already
    one, other = np.split(np.array(launched), 2)
    assert one.tolist() == other.tolist()
    of_the_section, *one = one
    assert of_the_section == "order"
    (count, launches) = re.findall(rf"^\| `{name}` \| (\d+) \| (.*) \|$", PAGE, re.MULTILINE)[0]
    assert " ".join(one) == launches
    assert len(one) == int(count)


def test_larger_batches_and_other_data_are_captured_anew(
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


def test_graphs_are_of_the_data_that_are_given(emulated: EmulatedBackend, mnist: Dataset) -> None:
    """However alike they are to those before."""
    found = []
    for compiled in (True, False):
        model = create_model("two-layer", backend=emulated, hidden_sizes=(5,), dtype="float64")
        trainer = Trainer(model, "adam", batch_size=4, compiled=compiled)
        losses = []
        for part in (slice(0, 8), slice(8, 16), slice(0, 8)):
            losses += trainer.fit(mnist.x_train[part], mnist.t_train[part], epochs=1).losses
        found.append(losses)
    np.testing.assert_allclose(*found, rtol=1e-9)


def test_a_batch_that_does_not_fit_says_which_would(
    mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cupy_workspace, "MOST_ROWS_A_SECTION", 10_000)
    backend = EmulatedBackend(memory_bytes=2_800_000)
    model = make_network("an activation first", backend, "float32")
    trainer = Trainer(model, "sgd", batch_size=900)
    data = trainer.prepare(mnist.x_train[:900], mnist.t_train[:900])
    with pytest.raises(MemoryError) as caught:
        trainer.fit(data, iterations=1)
    message = re.fullmatch(
        r"a batch of 900 images needs (\d+) MB on the GPU, of which 2 MB are free; "
        r"the largest batch that fits is about (\d+)",
        str(caught.value),
    )
    assert message is not None, caught.value
    assert message[1] == "3"
    fitting = int(message[2])
    trainer.batch_size = fitting + 20
    with pytest.raises(MemoryError, match=f"a batch of {fitting + 20} images"):
        trainer.fit(data, iterations=1)
    trainer.batch_size = fitting - 20
    assert len(trainer.fit(data, iterations=1).losses) == 1


@pytest.mark.parametrize(
    ("memory_bytes", "compiled", "message"),
    [
        (400_000, True, "the data set needs 1 MB on the GPU, of which 0 MB are free"),
        (880_000, True, r"Out of memory allocating \d+ bytes on the GPU, of which 0 MB are free"),
        (880_000, False, r"Out of memory allocating \d+ bytes on the GPU, of which 0 MB are free"),
    ],
    ids=["data set", "kernel that stays", "operations"],
)
def test_whatever_does_not_fit_says_what_is_free(
    mnist: Dataset, memory_bytes: int, compiled: bool, message: str
) -> None:
    backend = EmulatedBackend(memory_bytes=memory_bytes)
    trainer = Trainer(two_layers(backend), "sgd", batch_size=16, compiled=compiled)
    with pytest.raises(MemoryError, match=f"^{message}$") as caught:
        trainer.fit(mnist.x_train[:1000], mnist.t_train[:1000], iterations=1)
    assert caught.type is MemoryError


def test_the_first_error_of_a_capture_is_the_one_that_is_shown(
    mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = EmulatedBackend()
    trainer = Trainer(create_model("two-layer", backend=backend, hidden_sizes=(5,)), "adam")

    def fail(kernel: RawKernel, *args: Any) -> None:
        if backend.emulator.recorded is not None:
            raise RuntimeError("the launch has failed")

    def end_capture(stream: Stream) -> None:
        backend.emulator.recorded = None
        raise RuntimeError("the capture was invalidated")

    monkeypatch.setattr(RawKernel, "__call__", fail)
    monkeypatch.setattr(Stream, "end_capture", end_capture)
    with pytest.raises(RuntimeError, match="the launch has failed"):
        trainer.fit(mnist.x_train[:20], mnist.t_train[:20], iterations=1)
    assert backend.emulator.recorded is None


def test_an_interrupted_section_leaves_the_weights_as_they_were(
    mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = EmulatedBackend()
    model = create_model("two-layer", backend=backend, hidden_sizes=(5,))
    trainer = Trainer(model, "sgd", batch_size=2)
    data = trainer.prepare(mnist.x_train[:6], mnist.t_train[:6])
    trainer.fit(data, epochs=1)
    before = model.state_dict()
    asnumpy = backend._cupy.asnumpy

    def interrupt(array: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(backend._cupy, "asnumpy", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(data, epochs=1)
    monkeypatch.setattr(backend._cupy, "asnumpy", asnumpy)
    assert_same_bits(list(model.state_dict().values()), list(before.values()))


@pytest.mark.parametrize(("network_of", "batch_size"), [("graph", 17), ("grid", 5), ("block", 1)])
def test_a_section_copies_once_there_and_back_and_waits_at_its_ends(
    mnist: Dataset, network_of: str, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = EmulatedBackend()
    model = small_cnn(backend, filters=2) if network_of == "block" else two_layers(backend)
    trainer = Trainer(model, "sgd", batch_size=batch_size)
    images = batch_size * 3
    data = trainer.prepare(mnist.x_train[:images], mnist.t_train[:images])
    trainer.fit(data, epochs=1)  # allocates and captures
    done: list[str] = []
    for owner, names in (
        (EmulatedCupy, ("array", "asarray", "zeros", "empty", "asnumpy")),
        (Stream, ("synchronize", "begin_capture")),
        (backend._cupy.cuda.runtime, ("deviceSynchronize", "memGetInfo")),
        (RawKernel, ("_launch",)),
    ):
        for name in names:
            monkeypatch.setattr(owner, name, noted(done, name, getattr(owner, name)))
    trainer.fit(data, epochs=1)
    launches = 3 * 3 if network_of == "graph" else 1
    assert done == [
        "synchronize",  # others may have changed the parameters
        "_launch",  # which images
        *["asarray"] * 2,  # where each batch begins, learning rates
        *["_launch"] * launches,
        *["asnumpy"] * 2,  # losses, and how many images were recognised
        "synchronize",
    ]


def noted(done: list[str], name: str, function: Any) -> Any:
    """A function that adds its name to a list before it does what it does."""

    def call(*args: Any, **options: Any) -> Any:
        done.append(name)
        return function(*args, **options)

    return call


def test_filters_that_are_too_large_are_not_captured(emulated: EmulatedBackend) -> None:
    row = [L.Conv2d(1, 33, padding=3), L.Flatten(), L.Linear(10)]
    model = Network(row, losses.SoftmaxCrossEntropy(), input_shape=(1, 28, 28), backend=emulated)
    assert "a side of at most 32, not 33" in Trainer(model).not_compiled


def test_layers_that_do_not_fit_the_arguments_of_a_kernel_are_not_captured(
    emulated: EmulatedBackend,
) -> None:
    row = [L.Linear(10) for _ in range(17)]
    model = Network(row, losses.SoftmaxCrossEntropy(), input_shape=(784,), backend=emulated)
    assert "1 to 16 layers with parameters, not 17" in Trainer(model).not_compiled


# ------------------------------------------------------------------- one image after the other


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
    convolution = {"kernel_size": kernel_size, "bias": False, "uniform": True, **options}
    row = [L.Conv2d(filters, **convolution), *between, L.MaxPool2d(2, ties=ties)]
    return Network(
        [*row, L.Flatten(), L.Linear(10)],
        loss or losses.SoftmaxCrossEntropy(),
        input_shape=(1, 28, 28),
        backend=backend,
        dtype=dtype,
        pixel_shift=-0.5,
    )


ONE_BY_ONE: dict[str, dict[str, Any]] = {
    "as the recipe": {},
    "first ties": {"ties": "first"},
    "float64": {"dtype": "float64"},
    "filters that share the warps unevenly": {"filters": 5},
    "most filters": {"filters": 9},
    "larger filters": {"filters": 3, "kernel_size": 5},
    "binary cross-entropy": {"filters": 3, "loss": losses.BinaryCrossEntropy()},
    "quadratic loss": {"filters": 3, "loss": losses.Quadratic()},
}


def kernels_of_a_step(
    emulated: EmulatedBackend, model: Network, mnist: Dataset, **options: Any
) -> set[str]:
    """Train for a step; return what was launched."""
    trainer = Trainer(model, **{"optimizer": optimizers.SGD(), "batch_size": 1, **options})
    emulated.emulator.launched.clear()
    trainer.fit(mnist.x_train[:4], mnist.t_train[:4], iterations=1)
    return set(emulated.emulator.launched)


@emulated_and_real
@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_one_kernel_trains_image_by_image(backend: Backend, mnist: Dataset, name: str) -> None:
    models = small_cnn(backend, **ONE_BY_ONE[name]), small_cnn(backend, **ONE_BY_ONE[name])
    optimizer = optimizers.SGD(lr=0.01, weight_decay=0.01)
    assert_tiers_agree(models, (mnist.x_train[:4], mnist.t_train[:4]), optimizer, batch_size=1)


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_one_kernel_is_all_that_is_launched(
    emulated: EmulatedBackend, mnist: Dataset, name: str
) -> None:
    model = small_cnn(emulated, **ONE_BY_ONE[name])
    assert kernels_of_a_step(emulated, model, mnist) == {"order", "train_one_by_one"}


def test_one_kernel_takes_activations_and_float_images(
    emulated: EmulatedBackend, mnist: Dataset
) -> None:
    models = small_cnn(emulated, L.Tanh()), small_cnn(emulated, L.Tanh())
    data = mnist.x_train[:4] / np.float32(255), mnist.t_train[:4]
    assert_tiers_agree(models, data, optimizers.SGD(lr=0.01), batch_size=1)


@pytest.mark.parametrize("order", ThreadOrder)
def test_one_kernel_repeats_to_the_bit(
    mnist: Dataset, order: ThreadOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for device, section in ((Device(), 1024), (Device(order, seed=2), 2)):
        monkeypatch.setattr(cupy_workspace, "MOST_STEPS_A_SECTION", section)
        model = create_model("cnn", backend=EmulatedBackend(device))
        history = Trainer(model, "sgd", lr=0.01, batch_size=1).fit(
            mnist.x_train[:5], mnist.t_train[:5], epochs=2
        )
        results.append([history.losses, *model.state_dict().values()])
    assert_same_bits(results[0], results[1])


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {"batch_size": 2}),
        ({}, {"optimizer": optimizers.Adam()}),
        ({"bias": True}, {}),
        ({"padding": 1}, {}),
        ({"filters": 17}, {}),
        ({"filters": 10}, {}),  # the linear layer does not fit the registers
        ({"kernel_size": 6}, {}),
    ],
)
def test_other_trainings_are_graphs(
    emulated: EmulatedBackend, mnist: Dataset, changes: Any, options: Any
) -> None:
    launched = kernels_of_a_step(emulated, small_cnn(emulated, **changes), mnist, **options)
    assert {"conv2d", "head", "descend"} <= launched
    assert "train_one_by_one" not in launched


# ----------------------------------------------------------------------------------- small batches


def two_layers(
    backend: Backend,
    *,
    activation: L.Layer | None = None,
    loss: losses.Loss | None = None,
    inputs: int = 784,
    hidden: int = 6,
    bias: bool = True,
    dtype: str = "float64",
) -> Network:
    return Network(
        [L.Linear(hidden, bias=bias), activation or L.Sigmoid(), L.Linear(10)],
        loss or losses.Quadratic(),
        input_shape=(inputs,),
        backend=backend,
        dtype=dtype,
    )


@emulated_and_real
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": losses.SoftmaxCrossEntropy(), "activation": L.ReLU()},
        {"loss": losses.BinaryCrossEntropy(), "activation": L.Tanh()},
        {"hidden": 50, "dtype": "float32"},
        {"inputs": 30},  # the last block has fewer inputs
        {"inputs": 9},  # some blocks have none
    ],
    ids=str,
)
def test_some_blocks_train_small_batches(
    backend: Backend, mnist: Dataset, options: dict[str, Any]
) -> None:
    models = two_layers(backend, **options), two_layers(backend, **options)
    images = mnist.x_train[:13].reshape(13, 784)[:, 300:] / np.float64(255)
    if "inputs" in options:
        images = np.ascontiguousarray(images[:, : options["inputs"]])
    else:
        images = mnist.x_train[:13]
    optimizer = optimizers.SGD(lr=0.5, weight_decay=0.01)
    assert_tiers_agree(models, (images, mnist.t_train[:13]), optimizer, batch_size=5)
    if isinstance(backend, EmulatedBackend):
        backend.emulator.launched.clear()
        Trainer(models[0], "sgd", batch_size=16).fit(images, mnist.t_train[:13], iterations=1)
        assert backend.emulator.launched == ["order", "train_small_batches"]


@pytest.mark.parametrize("order", ThreadOrder)
@pytest.mark.parametrize("capability", ["80", "90"])
def test_some_blocks_repeat_to_the_bit_as_a_grid_and_as_a_cluster(
    mnist: Dataset, capability: str, order: ThreadOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for device, section in ((Device(), 1024), (Device(order, seed=2), 2)):
        monkeypatch.setattr(cupy_workspace, "MOST_STEPS_A_SECTION", section)
        backend = EmulatedBackend(device, capability="80" if section == 1024 else capability)
        model = create_model("backprop", backend=backend)
        history = Trainer(model, "sgd", lr=3.0, batch_size=10).fit(
            mnist.x_train[:25], mnist.t_train[:25], epochs=2
        )
        results.append([history.losses, *model.state_dict().values()])
    assert_same_bits(results[0], results[1])


@pytest.mark.parametrize(
    ("capability", "is_cluster"),
    [("70", False), ("89", False), ("90", True), ("100", True), ("120", True)],
)
def test_some_blocks_are_a_cluster_where_a_gpu_has_them(
    mnist: Dataset, capability: str, is_cluster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    launches = []

    def note(kernel: RawKernel, *args: Any, resident: int) -> None:
        launches.append((kernel.name, kernel.is_cluster, resident))

    monkeypatch.setattr(RawKernel, "_launch", note)
    monkeypatch.setattr(EmulatedCupy, "empty", EmulatedCupy.zeros)
    model = create_model("backprop", backend=EmulatedBackend(capability=capability))
    Trainer(model, "sgd", batch_size=10).fit(mnist.x_train[:10], mnist.t_train[:10], iterations=1)
    alone, together = ("order", False, 1), ("train_small_batches", True, 1)
    assert launches == [alone, together if is_cluster else ("train_small_batches", False, 8)]


def test_some_blocks_need_a_multiprocessor_each(mnist: Dataset) -> None:
    """Fewer could not hold them all: CuPy would launch fewer, which wait for the others' work."""
    for multiprocessors, stays in ((7, False), (8, True)):
        emulated = EmulatedBackend(multiprocessors=multiprocessors)
        trainer = Trainer(two_layers(emulated), "sgd", batch_size=4)
        trainer.fit(mnist.x_train[:4], mnist.t_train[:4], iterations=1)
        assert ("train_small_batches" in emulated.emulator.launched) == stays
        assert ("descend" in emulated.emulator.launched) == (not stays)


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {"batch_size": 17}),
        ({}, {"optimizer": optimizers.SGD(momentum=0.9)}),
        ({"bias": False}, {}),
        ({"hidden": 200}, {}),  # does not fit the shared memory
    ],
)
def test_what_some_blocks_cannot_do_is_a_graph(
    emulated: EmulatedBackend, mnist: Dataset, changes: Any, options: Any
) -> None:
    trainer = Trainer(
        two_layers(emulated, **changes),
        **{"optimizer": optimizers.SGD(), "batch_size": 4, **options},
    )
    emulated.emulator.launched.clear()
    trainer.fit(mnist.x_train[:17], mnist.t_train[:17], iterations=1)
    assert {"linear", "head", "descend"} <= set(emulated.emulator.launched)
    assert "train_small_batches" not in emulated.emulator.launched
