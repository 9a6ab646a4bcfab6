"""Convolution stages and the packed layout of the Numba backend against their naive versions."""

import math
from typing import Any

import numpy as np
import pytest
from numba import njit

from backends.numba.kernels import fused_convolution as fused
from backends.numba.kernels import naive
from backends.numba.kernels.simd.emitter import CACHE_LINE
from backends.numba.kernels.simd.pooling import CHANNEL_LANES
from backends.numba.kernels.views import view
from backends.numba.kernels.workspace import Workspace
from backends.numba.layout import Layout, lay_out
from backends.program import Pooling, Program, Stage

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
HEIGHT, WIDTH, PADDING = 11, 14, 1


@njit
def forward(stage: Any, offsets: Any, x: Any, packed: Any, work: Any, y: Any, mask: Any) -> None:
    taps = stage.kernel_size * stage.kernel_size * stage.in_channels
    tap_offsets = view(offsets, stage.tap_offsets, taps)
    fused.conv2d(stage, x, packed, tap_offsets, work.no_bias, y, mask)


@njit
def backward(stage: Any, x: Any, packed: Any, work: Any, dy: Any, mask: Any, gradient: Any) -> None:
    fused.frame_filters(stage, packed, work.filters)
    fused.clear_filter_gradient(stage, work.dfilters)
    fused.conv2d_backward(stage, x, mask, dy, work, gradient, work.dpadded)
    fused.add_filter_gradient(stage, work.dfilters, gradient)


@njit
def backward_direct(stage: Any, x: Any, dy: Any, mask: Any, gradient: Any) -> None:
    fused.conv2d_backward_direct(stage, x, mask, dy, gradient)


def conv_layout(
    channels: int, out: int, side: int, pooling: Pooling | None, dtype: str = "float64"
) -> Layout:
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
        dtype=dtype,
        pixel_shift=0.0,
    )
    return lay_out(program, is_sparse=False)


def buffer(size: int, dtype: Any) -> Any:
    """Return zeros, followed in memory by a line that kernels may overwrite."""
    return np.zeros(size + CACHE_LINE, dtype)[:size]


def workspace(layout: Layout, dtype: str) -> Workspace:
    """Return buffers for one thread and one image."""
    sizes = layout.sizes
    buffers = dict.fromkeys(Workspace._fields, np.zeros(0, dtype))
    for name in ("no_bias", "conv", "filters", "dfilters", "dpadded"):
        buffers[name] = buffer(sizes[name], dtype)
    return Workspace(**{**buffers, "capacity": 1, "places": buffer(sizes["places"], np.uint64)})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_convolution_stage_and_its_gradients(name: str, dtype: str) -> None:
    channels, out, side, pooling = CASES[name]
    layout = conv_layout(channels, out, side, pooling, dtype)
    stage = layout.stages[-1]
    random = np.random.default_rng(0)
    # Integers: sums are exact, and ties occur.
    filters = random.integers(-1, 2, (out, channels, side, side)).astype(dtype)
    bias = random.integers(-2, 3, out).astype(dtype)
    shape = HEIGHT + 2 * PADDING, WIDTH + 2 * PADDING, int(stage["in_lanes"])
    padded = buffer(math.prod(shape), dtype)
    x = padded.reshape(shape)[..., :channels]
    x[PADDING:-PADDING, PADDING:-PADDING] = random.integers(0, 3, (HEIGHT, WIDTH, channels))
    packed, work = np.zeros(layout.packed_size, dtype), workspace(layout, dtype)
    positions = layout.positions[: filters.size + out]
    packed[positions] = np.concatenate([filters.ravel(), bias])

    y, mask = buffer(stage["y_size"], dtype), buffer(stage["y_size"], np.uint8)
    forward(stage, layout.offsets, padded, packed, work, y, mask)
    settings = {"pools": pooling is not None, "all_ties": bool(stage["all_ties"])}
    want, want_mask = naive.conv2d(x, filters, bias, **settings)

    def channels_of(array: Any) -> Any:
        rows, columns = want.shape[:2]
        return array[: rows * columns * stage["out_lanes"]].reshape(rows, columns, -1)[..., :out]

    assert np.array_equal(channels_of(y), want)
    assert not y[want[..., 0].size * stage["out_lanes"] :].any()  # linear stages require zeros
    if pooling is not None:
        assert np.array_equal(channels_of(mask), want_mask)

    dy = np.zeros(stage["y_size"], dtype)
    channels_of(dy)[...] = random.integers(-2, 3, want.shape)
    gradient = np.zeros(layout.packed_size, dtype)
    assert fused.has_direct_gradient(stage) == (name == "pooled in registers")
    if fused.has_direct_gradient(stage):
        backward_direct(stage, padded, dy, mask, gradient)
    else:
        backward(stage, padded, packed, work, dy, mask, gradient)
    dx, dfilters, dbias = naive.conv2d_backward(
        channels_of(dy), want_mask, x, filters, pools=pooling is not None
    )
    got = gradient[positions]
    assert np.array_equal(got[: filters.size].reshape(filters.shape), dfilters)
    assert np.array_equal(got[filters.size :], dbias)
    if channels > 1:
        assert np.array_equal(work.dpadded.reshape(shape)[..., :channels], dx)


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
