"""Convolution stages and the packed layout of the Numba backend against their naive versions."""

from typing import Any

import numpy as np
import pytest
from numba import njit

from backends.numba.kernels import fused_convolution as fused
from backends.numba.kernels import naive
from backends.numba.kernels.simd.pooling import CHANNEL_LANES
from backends.numba.kernels.views import fill_zero, view
from backends.numba.kernels.workspace import Workspace
from backends.numba.layout import Layout, lay_out
from backends.program import Pooling, Program, Stage
from tests.support.closeness import assert_close

# Channels in, channels out, side of the filters, pooling.
CASES = {
    "pooled in registers": (1, 8, 3, Pooling(2, 2)),
    "pooled in registers, all ties": (1, 5, 3, Pooling(2, 2, "all")),
    "one vector of channels": (1, 6, 5, Pooling(2, 2)),
    "two vectors of channels": (3, 20, 3, Pooling(2, 2)),
    "two vectors of channels, no pooling": (10, 12, 2, None),
    "all ties": (1, 6, 5, Pooling(2, 2, "all")),
    "no pooling": (1, 3, 4, None),
}
HEIGHT, WIDTH, PADDING = 9, 12, 1


@njit
def forward(stage: Any, offsets: Any, x: Any, packed: Any, work: Any, y: Any, mask: Any) -> None:
    taps = stage.kernel_size * stage.kernel_size * stage.in_channels
    tap_offsets = view(offsets, stage.tap_offsets, taps)
    fused.conv2d(stage, x, packed, tap_offsets, work.bias, work.conv, y, mask)


@njit
def backward(
    stage: Any, offsets: Any, x: Any, packed: Any, work: Any, dy: Any, mask: Any, gradient: Any
) -> None:
    width = stage.vectors * CHANNEL_LANES
    taps = stage.kernel_size * stage.kernel_size * stage.in_channels
    outputs = view(offsets, stage.output_offsets, stage.conv_height * stage.conv_width)
    for tile in range(stage.out_lanes // width):
        weight = stage.weight + tile * taps * width
        if fused.pools_in_registers(stage):
            fused.conv_pooled_backward_filters(stage, tile, x, dy, mask, gradient, weight)
        else:
            fused.unpool(stage, tile, dy, mask, work.conv)
            fused.conv_backward_filters(stage, work.conv, x, outputs, gradient, weight)
    fused.conv_backward_bias(stage, dy, mask, gradient)
    if stage.in_lanes >= CHANNEL_LANES:
        fill_zero(work.filters)
        fused.transpose_filters(stage, packed, work.filters)
        fused.conv_backward_x(stage, dy, mask, work.filters, work.dpadded)


def conv_layout(channels: int, out: int, side: int, pooling: Pooling | None) -> Layout:
    """Return the layout of a network whose last stage is a convolution.

    If the convolution has several input channels, another convolution comes before it, so that the
    channels of its input are padded to whole vectors. The parameters of that other convolution are
    the last ones.
    """
    conv = HEIGHT + 2 * PADDING - side + 1, WIDTH + 2 * PADDING - side + 1
    shape = conv if pooling is None else (conv[0] // 2, conv[1] // 2)
    weights = out * channels * side * side
    image = channels, HEIGHT, WIDTH
    stages = [
        Stage(
            "conv2d",
            (1, HEIGHT, WIDTH),
            image,
            offsets={"W": weights + out},
            settings={"kernel_size": 1, "padding": 0},
        ),
        Stage(
            "conv2d",
            image,
            (out, *shape),
            offsets={"W": 0, "b": weights},
            settings={"kernel_size": side, "padding": PADDING},
            fused_pooling=pooling,
        ),
    ]
    program = Program(
        stages=tuple(stages if channels > 1 else stages[1:]),
        loss="quadratic",
        parameters=weights + out + (channels if channels > 1 else 0),
        dtype="float64",
        pixel_shift=0.0,
    )
    return lay_out(program, is_sparse=False)


def workspace(layout: Layout) -> Workspace:
    """Return buffers for one thread and one image."""
    empty = np.zeros(0)
    buffers = dict.fromkeys(Workspace._fields, empty)
    buffers |= {name: np.zeros(layout.sizes[name]) for name in ("conv", "bias", "filters")}
    return Workspace(**{**buffers, "capacity": 1, "dpadded": np.zeros(layout.sizes["dpadded"])})


@pytest.mark.parametrize("name", CASES)
def test_convolution_stage_and_its_gradients(name: str) -> None:
    channels, out, side, pooling = CASES[name]
    layout = conv_layout(channels, out, side, pooling)
    stage = layout.stages[-1]
    random = np.random.default_rng(0)
    # Integers: sums are exact, and ties occur.
    filters = random.integers(-1, 2, (out, channels, side, side)).astype("float64")
    bias = random.integers(-2, 3, out).astype("float64")
    image = random.integers(0, 3, (HEIGHT, WIDTH, channels))
    padded = np.zeros((HEIGHT + 2 * PADDING, WIDTH + 2 * PADDING, int(stage["in_lanes"])))
    padded[PADDING:-PADDING, PADDING:-PADDING, :channels] = image
    x = padded[..., :channels]
    packed, work = np.zeros(layout.packed_size), workspace(layout)
    positions = layout.positions[: filters.size + out]
    packed[positions] = np.concatenate([filters.ravel(), bias])

    y, mask = np.zeros(stage["y_size"]), np.zeros(stage["y_size"], np.uint8)
    forward(stage, layout.offsets, padded.ravel(), packed, work, y, mask)
    settings = {"pools": pooling is not None, "all_ties": bool(stage["all_ties"])}
    want, want_mask = naive.conv2d(x, filters, bias, **settings)

    def channels_of(array: Any) -> Any:
        rows, columns = want.shape[:2]
        return array[: rows * columns * stage["out_lanes"]].reshape(rows, columns, -1)[..., :out]

    assert_close(channels_of(y), want, dtype="float64", terms=side * side * channels)
    if pooling is not None:
        assert np.array_equal(channels_of(mask), want_mask)

    dy = np.zeros(stage["y_size"])
    channels_of(dy)[...] = random.standard_normal(want.shape)
    gradient = np.zeros(layout.packed_size)
    backward(stage, layout.offsets, padded.ravel(), packed, work, dy, mask, gradient)
    dx, dfilters, dbias = naive.conv2d_backward(
        channels_of(dy), want_mask, x, filters, pools=pooling is not None
    )
    got = gradient[positions]
    terms = {"dtype": "float64", "terms": dy.size}
    assert_close(got[: filters.size].reshape(filters.shape), dfilters, **terms)
    assert_close(got[filters.size :], dbias, **terms)
    if channels > 1:
        got_dx = work.dpadded[: padded.size].reshape(padded.shape)[..., :channels]
        assert_close(got_dx, dx, **terms)


@pytest.mark.parametrize(("channels", "out", "side"), [(1, 5, 3), (3, 20, 2), (2, 33, 1)])
def test_packed_order_of_filters(channels: int, out: int, side: int) -> None:
    layout = conv_layout(channels, out, side, None)
    lanes = int(layout.stages[-1]["vectors"]) * CHANNEL_LANES
    filters = np.arange(1.0, 1 + out * channels * side * side).reshape(out, channels, side, side)
    packed = np.zeros(layout.packed_size)
    packed[layout.positions[: filters.size]] = filters.ravel()
    want = naive.pack_filters(filters, lanes=lanes)
    begin = int(layout.stages[-1]["weight"])
    assert np.array_equal(packed[begin : begin + len(want)], want)


def test_packed_order_of_linear_weights() -> None:
    convolution = Stage(
        "conv2d",
        (1, 6, 6),
        (3, 2, 2),
        offsets={"W": 0},
        settings={"kernel_size": 3, "padding": 0},
        fused_pooling=Pooling(2, 2),
    )
    linear = Stage("linear", (3, 2, 2), (10,), offsets={"W": 27})
    settings = {"loss": "quadratic", "dtype": "float64", "pixel_shift": 0.0}
    program = Program(stages=(convolution, linear), parameters=27 + 120, **settings)
    layout = lay_out(program, is_sparse=False)
    stage = layout.stages[1]
    weights = np.arange(1.0, 121).reshape(12, 10)
    packed = np.zeros(layout.packed_size)
    packed[layout.positions[27:]] = weights.ravel()
    want = naive.pack_linear(
        weights, shape=(3, 2, 2), lanes=CHANNEL_LANES, size=int(stage["x_size"])
    )
    assert np.array_equal(packed[stage["weight"] :][: len(want)], want)
