"""The fast kernels of single layers compute the same as the naive ones of `kernels/naive/`."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backends import SGD
from backends.cupy.launch import convolution, linear, tiles, wgrad_update
from backends.cupy.launch.conv_shape import NO_CONV, ConvShape
from backends.cupy.launch.launcher import THREADS, Launcher
from backends.cupy.launch.wgrad_update import (
    SplitK,
    WgradLayer,
    filter_tile_for,
    split_conv,
    split_linear,
)
from tests.support.naive_kernels import CONVOLUTIONS, IMAGES, LR, Setting, arrays_of

pytestmark = pytest.mark.emulated

WEIGHT_DECAY = 0.01
# Large tiles are used for float32 only.
with_both_tiles = pytest.mark.parametrize("dtype", ["float64", "float32"])


@with_both_tiles
@pytest.mark.parametrize("sizes", [(7, 50, 13), (34, 70, 65)])
def test_linear_layer_matches_the_naive_kernels(
    tiled_setting: Setting, sizes: tuple[int, int, int]
) -> None:
    images, inputs, outputs = sizes
    x, weight = tiled_setting.random(images, inputs), tiled_setting.random(inputs, outputs)
    bias, dy = tiled_setting.random(outputs), tiled_setting.random(images, outputs)
    shape = {"images": images, "inputs": inputs, "outputs": outputs}
    y, expected = tiled_setting.empty(images, outputs), tiled_setting.empty(images, outputs)
    linear.linear(tiled_setting.launcher, x, weight, bias, y, "sigmoid")
    arguments = {"x": x, "weight": weight, "activation": "sigmoid", **shape}
    tiled_setting.naive("linear", y.size, bias=bias, y=expected, **arguments)
    tiled_setting.close(y, expected, inputs)
    dx, expected = tiled_setting.empty(images, inputs), tiled_setting.empty(images, inputs)
    linear.linear_backward_x(tiled_setting.launcher, dy, weight, x, dx, "sigmoid")
    tiled_setting.naive("linear_backward_x", dx.size, dy=dy, dx=expected, **arguments)
    tiled_setting.close(dx, expected, outputs)


@pytest.mark.parametrize("ties", ["first", "all"])
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_convolution_matches_the_naive_one(setting: Setting, shape: ConvShape, ties: Any) -> None:
    x, weight, bias, y, mask = arrays_of(setting, shape)
    x[:, :, 2:] = 0  # gives ties
    expected, expected_mask = setting.empty(*y.shape), setting.masks(*y.shape)
    pooled = mask if shape.pool == 2 else None
    options = {"activation": "relu", "ties": ties}
    convolution.conv2d(setting.launcher, x, weight, bias, y, pooled, shape, **options)
    setting.naive(
        "conv2d",
        y.size,
        x=x,
        weight=weight,
        bias=bias,
        conv=shape,
        images=IMAGES,
        all_ties=ties == "all",
        activation="relu",
        y=expected,
        mask=expected_mask,
    )
    setting.close(y, expected, weight[0].size)
    if pooled is not None:
        np.testing.assert_array_equal(mask, expected_mask)


@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_input_gradient_of_a_convolution_matches_the_naive_one(
    setting: Setting, shape: ConvShape
) -> None:
    x, weight, _, dy, mask = arrays_of(setting, shape)
    dx, expected = setting.empty(*x.shape), setting.empty(*x.shape)
    arguments = {"dy": dy, "mask": mask, "weight": weight, "x": x}
    convolution.conv2d_backward_x(
        setting.launcher, **arguments, dx=dx, shape=shape, activation="tanh"
    )
    sizes = {"conv": shape, "images": IMAGES, "activation": "tanh"}
    setting.naive("conv2d_backward_x", dx.size, **arguments, **sizes, dx=expected)
    setting.close(dx, expected, weight[:, 0].size)


def naive_weight_gradient(setting: Setting, layer: WgradLayer) -> tuple[Any, Any]:
    """Return the gradients of weight and bias by a naive kernel."""
    x, dy, conv = layer.x, layer.dy, layer.conv
    images = len(dy)
    if layer.conv == NO_CONV:
        dweight, dbias = setting.empty(layer.inputs, layer.outputs), setting.empty(layer.outputs)
        sizes = {"images": images, "inputs": layer.inputs, "outputs": layer.outputs}
        threads = (layer.inputs + 1) * layer.outputs
        setting.naive(
            "linear_backward_weight", threads, dy=dy, x=x, **sizes, dweight=dweight, dbias=dbias
        )
        return dweight, dbias
    side = conv.kernel_size
    dweight = setting.empty(conv.filters, conv.channels, side, side)
    dbias = setting.empty(conv.filters)
    mask = setting.masks(*dy.shape) if layer.mask is None else layer.mask
    setting.naive(
        "conv2d_backward_weight",
        dweight.size + dbias.size,
        dy=dy,
        mask=mask,
        x=x,
        conv=conv,
        images=images,
        dweight=dweight,
        dbias=dbias,
    )
    return dweight, dbias


@pytest.mark.parametrize(
    "shape",
    [
        CONVOLUTIONS[1],
        ConvShape(channels=2, height=4, width=5, filters=8, kernel_size=1, padding=1),
    ],
    ids=str,
)
def test_eager_weight_gradient_of_a_convolution_matches_the_naive_one(
    setting: Setting, shape: ConvShape
) -> None:
    x, _weight, _bias, dy, _ = arrays_of(setting, shape)
    tile = filter_tile_for(shape.kernel_size)
    sizes = {"cells": dy[0, 0].size, "filter_tile": tile, "threads": THREADS}
    split = replace(split_conv(shape, IMAGES, **sizes), splits=2)
    partial_sums = setting.empty(split.splits, split.parameters)
    convolution.conv2d_backward_weight(setting.launcher, dy, x, partial_sums, split, shape)
    layer = WgradLayer(x, dy, None, split, None, None, 0, 0, x[0].size, shape.filters, shape)
    dweight, dbias = naive_weight_gradient(setting, layer)
    expected = np.concatenate([dweight.ravel(), dbias])
    setting.close(partial_sums.sum(axis=0), expected, dy[:, 0].size)


def wgrad_layer(
    setting: Setting, x: Any, dy: Any, split: SplitK, weight: int, **options: Any
) -> WgradLayer:
    """Return a layer whose bias follows its weights in the parameter vector."""
    has_splits = split.splits > 1
    return WgradLayer(
        x=x,
        dy=dy,
        split=split,
        partial_sums=setting.empty(split.splits, split.parameters) if has_splits else None,
        tile_counters=setting.integers(1, split.units) if has_splits else None,
        weight=weight,
        bias=weight + split.parameters - dy.shape[1],
        inputs=x[0].size,
        outputs=dy.shape[1],
        **{"mask": None, **options},
    )


@pytest.mark.parametrize(
    ("dtype", "tile"),
    [("float64", tiles.SMALL), ("float64", tiles.TALL), ("float32", tiles.LARGE)],
    ids=["small", "tall", "large"],
)
@pytest.mark.parametrize("min_terms", [2048, 1])
def test_weight_gradients_and_update_match_the_naive_ones(
    tiled_setting: Setting, tile: tiles.Tile, min_terms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooled convolution and a linear layer; with few terms per block, both use split-K."""
    monkeypatch.setattr(wgrad_update, "MIN_TERMS", min_terms)
    shape = CONVOLUTIONS[0]
    batch = tiled_setting.graph_batch(IMAGES, classes=10)
    x, _weight, _, dy, mask = arrays_of(tiled_setting, shape)
    sizes = {"cells": dy[0, 0].size, "filter_tile": filter_tile_for(3), "threads": tile.threads}
    split = split_conv(shape, IMAGES, **sizes)
    conv = wgrad_layer(tiled_setting, x, dy, split, 0, mask=mask, conv=shape)
    x, dy = tiled_setting.random(IMAGES, 30), tiled_setting.random(IMAGES, 40)
    dense = wgrad_layer(
        tiled_setting, x, dy, split_linear(30, 40, IMAGES, tile=tile), conv.split.parameters
    )
    assert (conv.split.splits > 1, dense.split.splits > 1) == (min_terms == 1, min_terms == 1)
    weights = tiled_setting.random(conv.split.parameters + dense.split.parameters)
    gradients = [naive_weight_gradient(tiled_setting, layer) for layer in (conv, dense)]
    gradient = np.concatenate([part.ravel() for pair in gradients for part in pair])
    expected = weights - LR * (gradient + WEIGHT_DECAY * weights)
    launcher = Launcher(tiled_setting.kernels, tiled_setting.dtype, graph_batch=batch)
    wgrad_update.wgrad_update(
        launcher, SGD(weight_decay=WEIGHT_DECAY), [conv, dense], tile, batch, [weights]
    )
    tiled_setting.close(weights, expected, 200)
    chunk, state = batch.chunk, batch.state
    assert chunk.step[0] == 2
    assert chunk.losses[1] == pytest.approx(state.image_losses.mean(), rel=1e-6)
    assert chunk.correct[1] == state.image_correct.sum()
