"""Convolution with 2×2 max-pooling of one image, and the gradients.

Output channels are computed in channel tiles of 8 or 16. Layouts:

    padded input    (H, W, in_lanes)
    filters         (channel tile, kernel row, kernel column, in_channels, channels of the tile)
    y, mask         (OH, OW, out_lanes)

An output at row r, column c is a sum of products of filter taps and inputs. The offsets of these
inputs from the input at (r, c) are the same for all outputs (`Plan.offsets`).

With pooling to the first maximum, one of four outputs has a gradient, and it differs between the
channels. The gradients are therefore sums over pairs of a pooled output and a channel. With dy the
gradient of the pair, and the patch of the input from which its maximum was computed:

    gradient of a filter     += dy · patch of the input
    gradient of the patch    += dy · filter

The patches that belong to the four positions of the maximum overlap. In the layout of `filters`, a
filter has a margin of zeros, so that these patches of the input become one region, whose sums stay
in registers:

    ┌───────────────┐     the filter at the region's first row,     0 0 0 0
    │ region of the │     in two copies: at its first and at        1 2 3 0     0 1 2 3
    │ input, (k+1)² │     its second column. The offset of a        4 5 6 0     0 4 5 6
    └───────────────┘     pair selects the copy and the row.        7 8 9 0     0 7 8 9
                                                                    0 0 0 0     0 0 0 0

Without pooling, and if all equal maxima have a gradient, the pairs are outputs before pooling and
channels. `backends.numba.kernels.naive` computes the same with plain loops.

Cost per image: 2·OH·OW·k²·in·out floating-point operations forward, where OH·OW counts the outputs
before pooling. The gradient of the filters takes as many, and a quarter of them with pooling to the
first maximum; that of the input takes (1 + 1/k)² as many as that of the filters.
"""

from typing import Any

import numpy as np

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.simd import conv
from backends.numba.kernels.simd.pooling import CHANNEL_LANES, max_pool_2x2_backward
from backends.numba.kernels.views import fill_zero, pointer, view

_conv2d_8 = conv.conv2d(CHANNEL_LANES)
_conv2d_16 = conv.conv2d(2 * CHANNEL_LANES)
# With one input channel, at most 8 filters and pooling, each patch is pooled in registers.
_max_pool_3x3 = conv.conv_max_pool(3)
_max_pool_5x5 = conv.conv_max_pool(5)
_max_pool_wgrad_3x3 = conv.conv_max_pool_wgrad(3)


@kernel
def _row_of(stage: Any) -> Any:
    """Return the length of a row of the padded input."""
    return (stage.width + 2 * stage.padding) * stage.in_lanes


@kernel
def _pools_one_channel(stage: Any, side: int) -> Any:
    """Return whether a stage pools the convolution of one channel with at most 8 filters."""
    return (
        stage.pool_size == 2
        and stage.in_lanes == 1
        and stage.vectors == 1
        and stage.kernel_size == side
    )


def has_direct_gradient(stage: Any) -> bool:
    """Return whether `conv2d_backward_direct` can compute the gradients of a stage.

    It needs no offsets of pairs, because it reads the tie masks of all channels at once. The
    gradient of the bias needs the number of ties, which is 1 if only the first one counts.
    """
    row = np.asarray(stage).view(np.recarray)  # with attributes, as in compiled code
    return bool(_pools_one_channel.py_func(row, 3) and not (row.all_ties and row.bias >= 0))


@kernel
def conv2d(stage: Any, x: Any, packed: Any, offsets: Any, no_bias: Any, y: Any, mask: Any) -> None:
    """Set the pre-activations y of one image, after pooling if the stage pools.

    Args:
        stage: a stage of kind CONV2D.
        x: the padded input.
        packed: the parameters.
        offsets: offsets of the taps.
        no_bias: zeros, the bias of a stage without bias.
        y: (y_size,). Up to 8 numbers after y and `mask` may be overwritten.
        mask: tie mask, (y_size,); unchanged without pooling.
    """
    width, lanes, taps = stage.vectors * CHANNEL_LANES, stage.out_lanes, len(offsets)
    rows, columns, row = stage.out_height, stage.out_width, _row_of(stage)
    pools = 1 + stage.all_ties if stage.pool_size else 0
    scale = 2 if pools else 1
    source, o = pointer(x, 0), pointer(offsets, 0)
    for first in range(0, lanes, width):
        w = pointer(packed, stage.weight + taps * first)
        b = pointer(packed, stage.bias + first) if stage.bias >= 0 else pointer(no_bias, 0)
        target, ties = pointer(y, first), pointer(mask, first)
        if _pools_one_channel(stage, 3):
            _max_pool_3x3(target, ties, b, source, row, w, rows, columns, stage.all_ties)
        elif _pools_one_channel(stage, 5):
            _max_pool_5x5(target, ties, b, source, row, w, rows, columns, stage.all_ties)
        elif width == CHANNEL_LANES:
            _conv2d_8(
                target, ties, columns * lanes, lanes, b, source, row, stage.in_lanes, w, o, taps,
                rows * scale, columns * scale, pools,
            )  # fmt: skip
        else:
            _conv2d_16(
                target, ties, columns * lanes, lanes, b, source, row, stage.in_lanes, w, o, taps,
                rows * scale, columns * scale, pools,
            )  # fmt: skip
    # The kernels of one channel may have written here, and linear stages require zeros.
    end = rows * columns * lanes
    if end < len(y):
        fill_zero(view(y, end, len(y) - end))


@kernel
def round_up(count: int, unit: int) -> int:
    """Return the smallest multiple of `unit` that is at least `count`."""
    return (count + unit - 1) // unit * unit


@kernel
def _patch_row(stage: Any) -> Any:
    """Return the length of a row of a filter as a patch of the input."""
    return round_up(stage.kernel_size * stage.in_lanes, CHANNEL_LANES)


@kernel
def _framed_row(stage: Any) -> Any:
    """Return the length of a row of a filter with a margin."""
    return round_up((stage.kernel_size + 1) * stage.in_lanes, 2 * CHANNEL_LANES)


@kernel
def frame_filters(stage: Any, packed: Any, filters: Any) -> None:
    """Set `filters` to (out_channels, 2, row of zeros and kernel rows, length of a framed row).

    The two copies of a filter begin at column 0 and 1. A row of zeros follows the last one.
    """
    side, channels, lanes = stage.kernel_size, stage.in_channels, stage.in_lanes
    width, row = stage.vectors * CHANNEL_LANES, _framed_row(stage)
    copy = (side + 1) * row
    fill_zero(view(filters, 0, 2 * stage.out_channels * copy + row))
    for o in range(stage.out_channels):
        source = stage.weight + o // width * side * side * channels * width + o % width
        for i in range(side):
            target = 2 * o * copy + (i + 1) * row
            for j in range(side):
                for c in range(channels):
                    value = packed[source + ((i * side + j) * channels + c) * width]
                    filters[target + j * lanes + c] = value
                    filters[target + copy + (j + 1) * lanes + c] = value


@kernel
def clear_filter_gradient(stage: Any, dfilters: Any) -> None:
    """Set the gradient of all filters, as patches of the input, to 0."""
    fill_zero(view(dfilters, 0, stage.out_channels * stage.kernel_size * _patch_row(stage)))


@kernel
def add_filter_gradient(stage: Any, dfilters: Any, gradient: Any) -> None:
    """Add the gradient of all filters, as patches of the input, to that of the parameters."""
    side, channels, lanes = stage.kernel_size, stage.in_channels, stage.in_lanes
    width, row = stage.vectors * CHANNEL_LANES, _patch_row(stage)
    for o in range(stage.out_channels):
        target = stage.weight + o // width * side * side * channels * width + o % width
        for i in range(side):
            for j in range(side):
                source = (o * side + i) * row + j * lanes
                for c in range(channels):
                    gradient[target + ((i * side + j) * channels + c) * width] += dfilters[
                        source + c
                    ]


@kernel
def conv2d_backward(
    stage: Any, x: Any, mask: Any, dy: Any, work: Any, gradient: Any, dx: Any
) -> None:
    """Add the gradients of one image.

    Args:
        stage: a stage of kind CONV2D.
        x: the padded input.
        mask: tie mask.
        dy: gradient of the outputs.
        work: buffers. `filters` is set; the gradient of the filters is added to `dfilters`.
        gradient: gradient of the parameters.
        dx: gradient of the padded input; empty if it is not needed.
    """
    shape, upstream = (stage.out_height, stage.out_width, 2), pointer(dy, 0)
    if stage.all_ties or not stage.pool_size:
        shape = stage.conv_height, stage.conv_width, 1
        if stage.pool_size:
            _unpool(stage, dy, mask, work.conv)
            upstream = pointer(work.conv, 0)
    rows, columns, _ = shape
    if stage.bias >= 0:
        dbias = pointer(gradient, stage.bias)
        conv.sum_of_rows(dbias, upstream, stage.out_lanes, rows * columns)
    pairs = rows * columns * stage.out_lanes
    places, filter_places = view(work.places, 0, pairs), view(work.places, pairs, pairs)
    _locate(stage, shape, mask, places, filter_places)
    _backward_filters(stage, rows * columns, upstream, x, places, work.dfilters)
    if len(dx) > 0:
        _backward_x(stage, shape, upstream, work.filters, filter_places, dx)


@kernel
def conv2d_backward_direct(stage: Any, x: Any, mask: Any, dy: Any, gradient: Any) -> None:
    """Add the gradients of one image of a first stage for which `has_direct_gradient` holds.

    Args:
        stage: the stage.
        x: the padded input.
        mask: tie mask.
        dy: gradient of the outputs.
        gradient: gradient of the parameters.
    """
    rows, columns, upstream = stage.out_height, stage.out_width, pointer(dy, 0)
    if stage.bias >= 0:
        dbias = pointer(gradient, stage.bias)
        conv.sum_of_rows(dbias, upstream, stage.out_lanes, rows * columns)
    _max_pool_wgrad_3x3(
        pointer(gradient, stage.weight), pointer(x, 0), _row_of(stage),
        upstream, pointer(mask, 0), rows, columns,
    )  # fmt: skip


@kernel
def _locate(stage: Any, shape: Any, mask: Any, places: Any, filter_places: Any) -> None:
    """Set for each pair the offsets of its patch in the input and of its filter in `filters`.

    Args:
        stage: a stage of kind CONV2D.
        shape: rows and columns of the outputs, and the distance of their patches in pixels, which
            is 2 if the tie mask has the position of each maximum.
        mask: tie mask.
        places: (outputs, out_lanes).
        filter_places: (outputs, out_lanes).
    """
    rows, columns, stride = shape
    lanes, channels = stage.in_lanes, stage.out_lanes
    x_row, row = _row_of(stage), _framed_row(stage)
    copy = (stage.kernel_size + 1) * row
    at = 0
    for r in range(rows):
        for c in range(columns):
            corner = (r * x_row + c * lanes) * stride
            inputs, taps = view(places, at, channels), view(filter_places, at, channels)
            for o in range(len(inputs)):
                inputs[o] = corner
                taps[o] = 2 * o * copy + row
            if stride == 2:
                ties = view(mask, at, channels)
                for o in range(len(inputs)):
                    bits = np.int64(ties[o])
                    down, right = (bits >> 2 | bits >> 3) & 1, (bits >> 1 | bits >> 3) & 1
                    inputs[o] += down * x_row + right * lanes
                    taps[o] += right * copy - down * row
            at += channels


@kernel
def _backward_filters(stage: Any, count: int, dy: Any, x: Any, places: Any, dfilters: Any) -> None:
    """Add the gradient of all filters, from `count` outputs."""
    side, row = stage.kernel_size, _patch_row(stage)
    for o in range(stage.out_channels):
        conv.add_patches(
            pointer(dfilters, o * side * row), row, pointer(x, 0), _row_of(stage),
            pointer(dy, o), pointer(places, o), stage.out_lanes, count, side, row,
        )  # fmt: skip


@kernel
def _backward_x(stage: Any, shape: Any, dy: Any, filters: Any, places: Any, dx: Any) -> None:
    """Add the gradient of the padded input; `shape` is as in `_locate`."""
    rows, columns, stride = shape
    lanes, x_row = stage.in_lanes, _row_of(stage)
    reach = stage.kernel_size + stride - 1
    width = round_up(reach * lanes, 2 * CHANNEL_LANES)
    at = 0
    for r in range(rows):
        for c in range(columns):
            conv.add_aligned_patches(
                pointer(dx, (r * x_row + c * lanes) * stride), x_row,
                pointer(filters, 0), _framed_row(stage), pointer(dy, at), pointer(places, at), 1,
                stage.out_channels, reach, width,
            )  # fmt: skip
            at += stage.out_lanes


@kernel
def _unpool(stage: Any, dy: Any, mask: Any, dconv: Any) -> None:
    """Set `dconv` to the gradient of the outputs before pooling."""
    lanes = stage.out_lanes
    down = stage.conv_width * lanes
    if stage.conv_height % 2 + stage.conv_width % 2:
        fill_zero(view(dconv, 0, stage.conv_height * down))  # no patch covers an odd last row
    for r in range(stage.out_height):
        for c in range(stage.out_width):
            at = (r * stage.out_width + c) * lanes
            corner = (2 * r * stage.conv_width + 2 * c) * lanes
            for lane in range(0, lanes, CHANNEL_LANES):
                max_pool_2x2_backward(
                    pointer(dconv, corner + lane), lanes, down,
                    pointer(dy, at + lane), pointer(mask, at + lane),
                )  # fmt: skip
