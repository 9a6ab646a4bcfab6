"""Compiled training matches eager training for every division of work among threads and blocks."""

from collections.abc import Sequence
from typing import Any

import pytest

from backends import Backend
from backends.cupy import plan
from backends.cupy.launch import convolution, fused_classifier, tensor_linear, tiles, wgrad_update
from backends.cupy.loader import Kernels
from mnist_accel import nn
from mnist_accel.data import Dataset
from mnist_accel.nn import layers
from mnist_accel.training.trainer import Trainer
from tests.support.closeness import assert_same_bits
from tests.support.cuda_emulator.raw_module import Emulator, ThreadOrder
from tests.support.emulated_backend import EmulatedBackend
from tests.support.gpu_training import (
    assert_few_steps_match_eager,
    centers,
    emulated_and_cupy,
    small_convolutions,
    twin_networks,
)

pytestmark = pytest.mark.emulated
L = layers


@pytest.mark.parametrize("order", ThreadOrder)
def test_split_k_weight_gradients_match_with_more_splits_than_images(
    mnist: Dataset, order: ThreadOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last batch has 2 images for 7 splits, so some splits are empty."""
    splits = []

    def spy(layers: Sequence[wgrad_update.WgradLayer]) -> Any:
        splits.extend(layer.split.splits for layer in layers)
        return layer_structs(layers)

    layer_structs = wgrad_update.layer_structs
    monkeypatch.setattr(wgrad_update, "MIN_TERMS", 1)
    monkeypatch.setattr(wgrad_update, "layer_structs", spy)
    backend = EmulatedBackend(Emulator(order, seed=3))
    models = small_convolutions(backend)
    assert_few_steps_match_eager(models, centers(mnist, 9), nn.Adam(), batch_size=7)
    assert set(splits) == {7}


def test_filters_per_thread_do_not_change_a_bit(
    emulated: EmulatedBackend, mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for threads in (convolution.TARGET_THREADS, 1):
        monkeypatch.setattr(convolution, "TARGET_THREADS", threads)
        model, _ = small_convolutions(emulated)
        trainer = Trainer(model, "adam", batch_size=5, seed=1)
        history = trainer.fit(*centers(mnist, 9), epochs=1)
        results.append([history.losses, *model.state_dict().values()])
    assert_same_bits(*results)


@emulated_and_cupy
@pytest.mark.parametrize("images_per_block", [1, 2, 4, 8])
def test_fused_classifier_matches_for_all_numbers_of_images_per_block(
    backend: Backend, mnist: Dataset, images_per_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_classifier, "TARGET_BLOCKS", 1)
    monkeypatch.setattr(fused_classifier, "MAX_IMAGES_PER_BLOCK", images_per_block)
    launched = train_linear_layers(backend, mnist)
    if launched is not None:
        assert "linear_backward_x" not in launched


@emulated_and_cupy
def test_linear_layers_match_with_separate_launches(
    backend: Backend, mnist: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_classifier, "TARGET_BLOCKS", 1)
    monkeypatch.setattr(fused_classifier, "MAX_IMAGES_PER_BLOCK", 1)
    monkeypatch.setattr(plan, "MAX_WEIGHTS", 0)
    launched = train_linear_layers(backend, mnist)
    if launched is not None:
        assert "linear_backward_x" in launched


def train_linear_layers(backend: Backend, mnist: Dataset) -> list[str] | None:
    """Compare a stack of linear layers whose widths exercise every division of columns.

    Returns:
        The kernels that the emulator launched; None on a GPU.
    """
    stack = [L.Linear(5), L.ReLU(), L.Linear(600), L.Tanh(), L.Linear(70), L.Sigmoid()]
    stack += [L.Linear(3, bias=False), L.Linear(33), L.Tanh(), L.Linear(10)]
    models = twin_networks(stack, (784,), backend)
    data = mnist.x_train[:13], mnist.t_train[:13]
    emulator = backend.emulator if isinstance(backend, EmulatedBackend) else None
    if emulator:
        emulator.launched.clear()
    assert_few_steps_match_eager(models, data, nn.SGD(lr=0.05), batch_size=9)
    return emulator.launched if emulator else None


WIDE = [L.Linear(70), L.Tanh(), L.Linear(129, bias=False), L.ReLU(), L.Linear(65), L.Sigmoid()]
CONVOLUTIONS = [L.Conv2d(2, 5), L.MaxPool2d(), L.Conv2d(3, 5), L.ReLU(), L.MaxPool2d(), L.Flatten()]


@emulated_and_cupy
@pytest.mark.parametrize(
    ("stack", "max_weights", "expected"),
    [
        pytest.param(
            WIDE, 0, {"linear", "linear_backward_x", "wgrad_update"}, id="separate launches"
        ),
        pytest.param(
            WIDE, 1 << 16, {"linear", "fused_classifier", "wgrad_update"}, id="fused classifier"
        ),
        pytest.param(
            [*CONVOLUTIONS, L.Linear(70), L.Tanh()],
            1 << 16,
            {"wgrad_update"},
            id="after convolutions",
        ),
    ],
)
def test_large_tiles_match(
    backend: Backend,
    mnist: Dataset,
    stack: list[L.Layer],
    max_weights: int,
    expected: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last tiles are only partly filled, and the weight gradients use split-K."""
    monkeypatch.setattr(tensor_linear, "MIN_CAPABILITY", 1000)
    monkeypatch.setattr(tiles, "MIN_LARGE_TILES", 2)
    monkeypatch.setattr(wgrad_update, "MIN_TERMS", 7)
    monkeypatch.setattr(plan, "MAX_WEIGHTS", max_weights)
    tile_sides = []

    def spy(kernels: Kernels, file: str, name: str, constants: Any, **options: Any) -> Any:
        if "THREAD_TILE" in constants:
            tile_sides.append((name, constants["THREAD_TILE"]))
        return get(kernels, file, name, constants, **options)

    get = Kernels.get
    monkeypatch.setattr(Kernels, "get", spy)
    input_shape = (784,) if stack is WIDE else (1, 28, 28)
    models = twin_networks([*stack, L.Linear(10)], input_shape, backend, dtype="float32")
    data = mnist.x_train[:57], mnist.t_train[:57]
    assert_few_steps_match_eager(models, data, nn.SGD(lr=0.05), batch_size=34)
    assert {side for _, side in tile_sides} == {8}
    assert {name for name, _ in tile_sides} == expected
