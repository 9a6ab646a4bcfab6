"""Convolution with 2×2 max-pooling of one image, and the gradients.

Output channels are computed in channel tiles of one or two vectors. Layouts:

    padded input    (H, W, in_lanes)
    filters         (channel tile, kernel row, kernel column, in_channels, lanes of the tile)
    conv            (conv_height, conv_width, lanes of the tile): outputs of one channel tile before
                    pooling; small enough for the first-level cache
    y, mask         (OH, OW, out_lanes)

An output at row r, column c is a sum of products of filter taps and inputs. The offsets of these
inputs from the input at (r, c) are the same for all outputs (`Plan.offsets`).

In the backward pass, `conv` holds the gradient before pooling: the gradient of the pooled output at
positions in the tie mask, and 0 elsewhere. `backends.numba.kernels.naive` computes the same with
plain loops.

Cost per image: 2·OH·OW·k²·in·out floating-point operations forward, and as many for the gradient of
the filters. The gradient of the input skips positions that receive no gradient.
"""

from typing import Any

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.simd.conv import (
    axpy,
    conv_max_pool,
    conv_max_pool_wgrad,
    conv_tile,
    conv_wgrad_tile,
)
from backends.numba.kernels.simd.pooling import (
    CHANNEL_LANES,
    max_pool_2x2,
    max_pool_2x2_backward,
)
from backends.numba.kernels.views import copy, fill_zero, pointer, view

# Positions × vectors of the channel tile; the sums of 7×1 or 5×2 fit the registers. The input has
# one channel (plain), one vector of channels (lanes) or two (wide).
_tile_7x1_plain = conv_tile(7, 1, x_stride=1)
_tile_1x1_plain = conv_tile(1, 1, x_stride=1)
_tile_5x2_plain = conv_tile(5, 2, x_stride=1)
_tile_1x2_plain = conv_tile(1, 2, x_stride=1)
_tile_7x1_lanes = conv_tile(7, 1, x_stride=CHANNEL_LANES)
_tile_5x2_lanes = conv_tile(5, 2, x_stride=CHANNEL_LANES)
_tile_5x2_wide = conv_tile(5, 2, x_stride=2 * CHANNEL_LANES)
# For 3×3 filters on one channel, only the pooled outputs are written to memory.
_pooled_3x3 = conv_max_pool(3)
_pooled_wgrad_3x3 = conv_max_pool_wgrad(3)
# Taps × rows × vectors.
_wgrad_5x2x1 = conv_wgrad_tile(5, 2, 1)
_wgrad_5x1x1 = conv_wgrad_tile(5, 1, 1)
_wgrad_3x3x1 = conv_wgrad_tile(3, 3, 1)
_wgrad_3x1x1 = conv_wgrad_tile(3, 1, 1)
_wgrad_1x1x1 = conv_wgrad_tile(1, 1, 1)
_wgrad_5x1x2 = conv_wgrad_tile(5, 1, 2)
_wgrad_3x2x2 = conv_wgrad_tile(3, 2, 2)
_wgrad_3x1x2 = conv_wgrad_tile(3, 1, 2)
_wgrad_1x1x2 = conv_wgrad_tile(1, 1, 2)


@kernel
def pools_in_registers(stage: Any) -> Any:
    """Return whether a stage is pooled before its outputs are written to memory.

    The filters of a channel tile and the outputs of one patch must fit the registers.
    """
    return (
        stage.pool_size == 2
        and stage.kernel_size == 3
        and stage.in_lanes == 1
        and stage.vectors == 1
    )


@kernel
def _conv_row(stage: Any, conv: Any, bias: Any, x: Any, offsets: Any, w: Any) -> None:
    """Set one row of the outputs of a channel tile, before pooling.

    Args:
        stage: a stage of kind CONV2D.
        conv: the row, (conv_width · lanes of the tile,).
        bias: bias of the channel tile.
        x: pointer to the input of the first output.
        offsets: offsets of the taps.
        w: pointer to the filters of the channel tile.
    """
    vectors, lanes = stage.vectors, stage.in_lanes
    columns = stage.conv_width
    width = vectors * CHANNEL_LANES
    taps = len(offsets)
    b, o = pointer(bias, 0), pointer(offsets, 0)
    size = 7 if vectors == 1 else 5
    if columns < size or lanes > width:
        size = 1
    column = 0
    while column < columns:
        # The last tile overlaps the previous one. The outputs of both are the same.
        column = min(column, columns - size)
        ys, xs = pointer(conv, column * width), pointer(x, column * lanes)
        if size == 1:
            if vectors == 1:
                _tile_1x1_plain(ys, b, xs, o, w, taps)
            else:
                _tile_1x2_plain(ys, b, xs, o, w, taps)
        elif vectors == 1:
            if lanes == 1:
                _tile_7x1_plain(ys, b, xs, o, w, taps)
            else:
                _tile_7x1_lanes(ys, b, xs, o, w, taps)
        elif lanes == 1:
            _tile_5x2_plain(ys, b, xs, o, w, taps)
        elif lanes == CHANNEL_LANES:
            _tile_5x2_lanes(ys, b, xs, o, w, taps)
        else:
            _tile_5x2_wide(ys, b, xs, o, w, taps)
        column += size


@kernel
def _load_bias(stage: Any, tile: int, packed: Any, bias: Any) -> None:
    """Set the bias of a channel tile, 0 in unused lanes."""
    width = stage.vectors * CHANNEL_LANES
    target = view(bias, 0, width)
    fill_zero(target)
    if stage.bias >= 0:
        for lane in range(min(width, stage.out_channels - tile * width)):
            target[lane] = packed[stage.bias + tile * width + lane]


@kernel
def conv2d(
    stage: Any, x: Any, packed: Any, offsets: Any, bias: Any, conv: Any, y: Any, mask: Any
) -> None:
    """Set the pre-activations y of one image, after pooling if the stage pools.

    Args:
        stage: a stage of kind CONV2D.
        x: the padded input.
        packed: the parameters.
        offsets: offsets of the taps.
        bias: buffer for the bias of a channel tile.
        conv: buffer for the outputs of a channel tile.
        y: (y_size,).
        mask: tie mask, (y_size,); unchanged without pooling.
    """
    width = stage.vectors * CHANNEL_LANES
    row = (stage.width + 2 * stage.padding) * stage.in_lanes
    conv_row = stage.conv_width * width
    for tile in range(stage.out_lanes // width):
        _load_bias(stage, tile, packed, bias)
        w = stage.weight + tile * len(offsets) * width
        if pools_in_registers(stage):
            _conv_pooled_in_registers(stage, x, packed, w, bias, y, mask, tile * width)
            continue
        for r in range(stage.conv_height):
            _conv_row(
                stage, view(conv, r * conv_row, conv_row), bias,
                pointer(x, r * row), offsets, pointer(packed, w),
            )  # fmt: skip
        _pool(stage, conv, y, mask, tile * width)


@kernel
def _conv_pooled_in_registers(
    stage: Any, x: Any, packed: Any, w: int, bias: Any, y: Any, mask: Any, lane: int
) -> None:
    """Set the pooled outputs of the channel tile that begins at `lane`."""
    row = (stage.width + 2 * stage.padding) * stage.in_lanes
    for r in range(stage.out_height):
        for c in range(stage.out_width):
            at = (r * stage.out_width + c) * stage.out_lanes + lane
            _pooled_3x3(
                pointer(y, at), pointer(mask, at), pointer(bias, 0),
                pointer(x, 2 * r * row + 2 * c), row, pointer(packed, w), stage.all_ties,
            )  # fmt: skip


@kernel
def _pool(stage: Any, conv: Any, y: Any, mask: Any, first: int) -> None:
    """Pool or copy `conv` to the channel tile of y that begins at lane `first`."""
    width = stage.vectors * CHANNEL_LANES
    down = stage.conv_width * width
    for r in range(stage.out_height):
        for c in range(stage.out_width):
            at = (r * stage.out_width + c) * stage.out_lanes + first
            if stage.pool_size:
                corner = (2 * r * stage.conv_width + 2 * c) * width
                for lane in range(0, width, CHANNEL_LANES):
                    max_pool_2x2(
                        pointer(y, at + lane), pointer(mask, at + lane),
                        pointer(conv, corner + lane), width, down, stage.all_ties,
                    )  # fmt: skip
            else:
                source = (r * stage.conv_width + c) * width
                copy(view(conv, source, width), view(y, at, width))


@kernel
def conv_pooled_backward_filters(
    stage: Any, tile: int, x: Any, dy: Any, mask: Any, gradient: Any, weight: int
) -> None:
    """Add the gradient of the 3×3 filters of a channel tile; dy belongs to the pooled outputs."""
    row = (stage.width + 2 * stage.padding) * stage.in_lanes
    for r in range(stage.out_height):
        at = r * stage.out_width * stage.out_lanes + tile * CHANNEL_LANES
        _pooled_wgrad_3x3(
            pointer(gradient, weight), pointer(x, 2 * r * row), row,
            pointer(dy, at), pointer(mask, at), stage.out_lanes, stage.out_width,
        )  # fmt: skip


@kernel
def unpool(stage: Any, tile: int, dy: Any, mask: Any, conv: Any) -> None:
    """Set `conv` to the gradient of a channel tile before pooling."""
    width = stage.vectors * CHANNEL_LANES
    down = stage.conv_width * width
    if stage.pool_size and stage.conv_height % 2 + stage.conv_width % 2:
        fill_zero(view(conv, 0, stage.conv_height * down))  # no patch covers an odd last row
    for r in range(stage.out_height):
        for c in range(stage.out_width):
            at = (r * stage.out_width + c) * stage.out_lanes + tile * width
            if stage.pool_size:
                corner = (2 * r * stage.conv_width + 2 * c) * width
                for lane in range(0, width, CHANNEL_LANES):
                    max_pool_2x2_backward(
                        pointer(conv, corner + lane), width, down,
                        pointer(dy, at + lane), pointer(mask, at + lane),
                    )  # fmt: skip
            else:
                target = (r * stage.out_width + c) * width
                copy(view(dy, at, width), view(conv, target, width))


@kernel
def conv_backward_filters(
    stage: Any, conv: Any, x: Any, outputs: Any, gradient: Any, weight: int
) -> None:
    """Add the gradient of the filters of a channel tile.

    Args:
        stage: a stage of kind CONV2D.
        conv: gradient of the outputs before pooling.
        x: the padded input.
        outputs: for each output, the offset of the input of its first tap.
        gradient: gradient of the parameters.
        weight: offset of the filters of the channel tile.
    """
    side, channels, lanes = stage.kernel_size, stage.in_channels, stage.in_lanes
    width = stage.vectors * CHANNEL_LANES
    x_row = (stage.width + 2 * stage.padding) * lanes
    # The kernels take groups of taps whose inputs are neighbors in memory: with one channel, the
    # taps of a filter row; with several channels, the channels of one position of the filter.
    rounds, taps, distance = (1, side, x_row) if lanes == 1 else (side, channels, lanes)
    for i in range(rounds):
        dw = view(gradient, weight + i * side * taps * width, side * taps * width)
        _wgrad_rows(stage.vectors, taps, dw, pointer(x, i * x_row), distance, outputs, conv)


# Each branch calls the kernel of one tile size, because sizes are constants of the generated code.
@kernel
def _wgrad_rows(  # noqa: C901
    vectors: int, taps: int, dw: Any, x: Any, x_row: int, outputs: Any, conv: Any
) -> None:
    """Add the gradient of rows of `taps` taps to dw, in tiles whose sums fit the registers.

    Args:
        vectors: vectors of the channel tile.
        taps: taps of a row.
        dw: gradient, (rows · taps · lanes of the tile,).
        x: pointer to the input of the first tap.
        x_row: distance in the input between rows of taps.
        outputs: for each output, the offset of the input of its first tap.
        conv: gradient of the outputs before pooling.
    """
    width = vectors * CHANNEL_LANES
    dw_row = taps * width
    rows = len(dw) // dw_row
    count = len(outputs)
    o, dy = pointer(outputs, 0), pointer(conv, 0)
    threes = taps == 3 or taps == 6
    row = 0
    while row < rows:
        left = rows - row
        together = 1
        if threes and left >= 2:
            together = 3 if vectors == 1 and left >= 3 else 2 if vectors == 2 else 1
        elif taps == 5 and vectors == 1 and left >= 2:
            together = 2
        tap = 0
        while tap < taps:
            dws, xs = pointer(dw, row * dw_row + tap * width), pointer(x, row * x_row + tap)
            rest = taps - tap
            run = 5 if rest == 5 or rest >= 8 else 3 if rest >= 3 else 1
            if vectors == 1:
                if together == 3:
                    _wgrad_3x3x1(dws, dw_row, xs, x_row, o, dy, count)
                elif together == 2:
                    _wgrad_5x2x1(dws, dw_row, xs, x_row, o, dy, count)
                elif run == 5:
                    _wgrad_5x1x1(dws, dw_row, xs, x_row, o, dy, count)
                elif run == 3:
                    _wgrad_3x1x1(dws, dw_row, xs, x_row, o, dy, count)
                else:
                    _wgrad_1x1x1(dws, dw_row, xs, x_row, o, dy, count)
            elif together == 2:
                _wgrad_3x2x2(dws, dw_row, xs, x_row, o, dy, count)
            elif run == 5:
                _wgrad_5x1x2(dws, dw_row, xs, x_row, o, dy, count)
            elif run == 3:
                _wgrad_3x1x2(dws, dw_row, xs, x_row, o, dy, count)
            else:
                _wgrad_1x1x2(dws, dw_row, xs, x_row, o, dy, count)
            tap += run
        row += together


@kernel
def transpose_filters(stage: Any, packed: Any, filters: Any) -> None:
    """Copy the filters to the layout (out_channels, kernel row, kernel column, in_lanes)."""
    side, channels, lanes = stage.kernel_size, stage.in_channels, stage.in_lanes
    width = stage.vectors * CHANNEL_LANES
    taps = side * side
    for o in range(stage.out_channels):
        tile, lane = o // width, o % width
        for tap in range(taps):
            target = (o * taps + tap) * lanes
            for c in range(channels):
                source = stage.weight + ((tile * taps + tap) * channels + c) * width + lane
                filters[target + c] = packed[source]


@kernel
def conv_backward_x(stage: Any, dy: Any, mask: Any, filters: Any, dx: Any) -> None:
    """Add the gradient of the padded input to dx (H, W, in_lanes).

    `in_lanes` is a multiple of CHANNEL_LANES, as in all stages except the first. Positions without
    gradient are skipped: with pooling about three of four, and those at which a ReLU returned 0.
    """
    side, lanes = stage.kernel_size, stage.in_lanes
    row = (stage.width + 2 * stage.padding) * lanes
    run = side * lanes
    for r in range(stage.out_height):
        for c in range(stage.out_width):
            at = (r * stage.out_width + c) * stage.out_lanes
            for o in range(stage.out_channels):
                gradient = dy[at + o]
                if gradient == 0:
                    continue
                bits = mask[at + o] if stage.pool_size else 1
                stride = 2 if stage.pool_size else 1
                for position in range(4):
                    if (bits >> position) & 1:
                        first_row = r * stride + position // 2
                        column = c * stride + position % 2
                        for i in range(side):
                            target = (first_row + i) * row + column * lanes
                            source = (o * side + i) * run
                            axpy(pointer(dx, target), pointer(filters, source), gradient, run)


@kernel
def conv_backward_bias(stage: Any, dy: Any, mask: Any, gradient: Any) -> None:
    """Add the gradient of each output to that of the bias, once per bit of its tie mask."""
    size = stage.out_height * stage.out_width * stage.out_lanes
    if not (stage.pool_size and stage.all_ties):
        one = dy.dtype.type(1)
        for at in range(0, size, CHANNEL_LANES):
            dbias = pointer(gradient, stage.bias + at % stage.out_lanes)
            axpy(dbias, pointer(dy, at), one, CHANNEL_LANES)
        return
    for at in range(0, size, stage.out_lanes):
        for o in range(stage.out_channels):
            bits = mask[at + o]
            times = (bits & 1) + (bits >> 1 & 1) + (bits >> 2 & 1) + (bits >> 3 & 1)
            gradient[stage.bias + o] += times * dy[at + o]
