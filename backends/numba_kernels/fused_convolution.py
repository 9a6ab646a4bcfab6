"""Convolution, activation and 2×2 max-pooling of one image in one go, and their gradients.

Layout: input with its border of zeros (H, W, channels in lanes); filters by block of `vectors`
vectors of output channels, each (kernel, kernel, channels in, lanes of the block); feature maps
(OH, OW, lanes). A convolution at row r, column c adds up the products of numbers of the input with
rows of the filters; where these numbers lie is the same for all r and c but for an offset.

`conv` is scratch for the feature maps of one block, small enough to stay in the nearest cache.
Going back, it holds their gradients: zero but where the tie mask says otherwise.

Cost per image: 2·OH·OW·k²·in·out floating-point operations forward and as many for the filters'
gradient; for that of the input, only the positions that receive gradient count.
"""

from typing import Any

import numpy as np

from backends.numba_kernels.compilation import kernel
from backends.numba_kernels.elementwise import activate, clear_filling, copy, fill
from backends.numba_kernels.vectors import (
    LANES,
    add_scaled,
    maximum_of_four,
    products,
    spread_to_four,
)
from backends.numba_kernels.views import part

# So many outputs at once as leave their sums in registers, for one and for two vectors of channels,
# and for an input with one channel or with lanes.
_forward_7x1_plain = products(7, 1, x_step=1, accumulate=False)
_forward_1x1_plain = products(1, 1, x_step=1, accumulate=False)
_forward_5x2_plain = products(5, 2, x_step=1, accumulate=False)
_forward_1x2_plain = products(1, 2, x_step=1, accumulate=False)
_forward_7x1_lanes = products(7, 1, x_step=LANES, accumulate=False)
_forward_5x2_lanes = products(5, 2, x_step=LANES, accumulate=False)
_forward_5x2_wide = products(5, 2, x_step=2 * LANES, accumulate=False)
# So many taps at once.
_taps_1x1 = products(1, 1, x_step=1, accumulate=True)
_taps_3x1 = products(3, 1, x_step=1, accumulate=True)
_taps_4x1 = products(4, 1, x_step=1, accumulate=True)
_taps_5x1 = products(5, 1, x_step=1, accumulate=True)
_taps_1x2 = products(1, 2, x_step=1, accumulate=True)
_taps_3x2 = products(3, 2, x_step=1, accumulate=True)
_taps_4x2 = products(4, 2, x_step=1, accumulate=True)
_taps_5x2 = products(5, 2, x_step=1, accumulate=True)


@kernel
def tap_offsets(stage: Any) -> Any:
    """Return, for each tap of a filter, where its input for the first output lies."""
    side, channels, lanes = stage.kernel_size, stage.in_channels, stage.in_lanes
    row = (stage.width + 2 * stage.padding) * lanes
    offsets = np.empty(side * side * channels, np.uint64)
    for i in range(side):
        for j in range(side):
            for c in range(channels):
                offsets[(i * side + j) * channels + c] = i * row + j * lanes + c
    return offsets


@kernel
def output_offsets(stage: Any) -> Any:
    """Return, for each output of the convolution, where the input of its first tap lies."""
    row = (stage.width + 2 * stage.padding) * stage.in_lanes
    offsets = np.empty(stage.conv_height * stage.conv_width, np.uint64)
    for r in range(stage.conv_height):
        for c in range(stage.conv_width):
            offsets[r * stage.conv_width + c] = r * row + c * stage.in_lanes
    return offsets


@kernel
def convolve_row(
    stage: Any, conv: Any, row: int, start: Any, x: Any, x_at: int, offsets: Any, w: Any, w_at: int
) -> None:
    """Compute one row of the feature maps of a block into `conv`."""
    vectors, lanes = stage.vectors, stage.in_lanes
    columns = stage.conv_width
    step = vectors * LANES
    taps = len(offsets)
    at = row * columns * step
    column = 0
    if vectors == 1 and columns >= 7 and lanes <= LANES:
        while column < columns:
            # The last few begin early and compute some outputs twice, to the same bits.
            column = min(column, columns - 7)
            y_at, from_ = at + column * step, x_at + column * lanes
            if lanes == 1:
                _forward_7x1_plain(conv, y_at, step, start, 0, x, from_, offsets, w, w_at, taps)
            else:
                _forward_7x1_lanes(conv, y_at, step, start, 0, x, from_, offsets, w, w_at, taps)
            column += 7
    elif vectors == 2 and columns >= 5 and lanes <= 2 * LANES:
        while column < columns:
            column = min(column, columns - 5)
            y_at, from_ = at + column * step, x_at + column * lanes
            if lanes == 1:
                _forward_5x2_plain(conv, y_at, step, start, 0, x, from_, offsets, w, w_at, taps)
            elif lanes == LANES:
                _forward_5x2_lanes(conv, y_at, step, start, 0, x, from_, offsets, w, w_at, taps)
            else:
                _forward_5x2_wide(conv, y_at, step, start, 0, x, from_, offsets, w, w_at, taps)
            column += 5
    else:
        for column in range(columns):
            y_at, from_ = at + column * step, x_at + column * lanes
            if vectors == 1:
                _forward_1x1_plain(conv, y_at, step, start, 0, x, from_, offsets, w, w_at, taps)
            else:
                _forward_1x2_plain(conv, y_at, step, start, 0, x, from_, offsets, w, w_at, taps)


@kernel
def conv2d(
    stage: Any, x: Any, packed: Any, offsets: Any, start: Any, conv: Any, y: Any, mask: Any
) -> None:
    """Compute the feature maps `y` of one image, pooled if the stage pools, before activation.

    Args:
        stage: of kind CONV2D.
        x: the image with its border.
        packed: the parameters.
        offsets: of the taps.
        start: scratch for the biases of a block.
        conv: scratch for the feature maps of a block.
        y: (cells · lanes,).
        mask: tie mask, like y; untouched without pooling.
    """
    step = stage.vectors * LANES
    row = (stage.width + 2 * stage.padding) * stage.in_lanes
    for block in range(stage.out_lanes // step):
        fill(start)
        if stage.bias >= 0:
            for o in range(min(step, stage.out_channels - block * step)):
                start[o] = packed[stage.bias + block * step + o]
        w_at = stage.weight + block * len(offsets) * step
        for r in range(stage.conv_height):
            convolve_row(stage, conv, r, start, x, r * row, offsets, packed, w_at)
        below = stage.conv_width * step
        for r in range(stage.out_height):
            for c in range(stage.out_width):
                cell = (r * stage.out_width + c) * stage.out_lanes + block * step
                if stage.pool_size:
                    corner = (2 * r * stage.conv_width + 2 * c) * step
                    for lane in range(0, step, LANES):
                        maximum_of_four(
                            y, mask, cell + lane, conv, corner + lane, step, below, stage.all_ties
                        )
                else:
                    at = (r * stage.conv_width + c) * step
                    copy(part(conv, at, step), part(y, cell, step))


@kernel
def spread(stage: Any, block: int, dy: Any, mask: Any, conv: Any) -> None:
    """Write the gradient of a block's feature maps into `conv`, from that of the pooled ones."""
    step = stage.vectors * LANES
    below = stage.conv_width * step
    if stage.pool_size and stage.conv_height % 2 + stage.conv_width % 2:
        fill(part(conv, 0, stage.conv_height * below))  # no window covers a last odd row or column
    for r in range(stage.out_height):
        for c in range(stage.out_width):
            cell = (r * stage.out_width + c) * stage.out_lanes + block * step
            if stage.pool_size:
                corner = (2 * r * stage.conv_width + 2 * c) * step
                for lane in range(0, step, LANES):
                    spread_to_four(conv, corner + lane, step, below, dy, mask, cell + lane)
            else:
                at = (r * stage.out_width + c) * step
                copy(part(dy, cell, step), part(conv, at, step))


@kernel
def add_tap_products(
    stage: Any, conv: Any, x: Any, outputs: Any, gradient: Any, weight: int
) -> None:
    """Add the gradient of a block's filters, from that of its feature maps in `conv`."""
    side, channels, lanes = stage.kernel_size, stage.in_channels, stage.in_lanes
    step = stage.vectors * LANES
    row = (stage.width + 2 * stage.padding) * lanes
    # Taps beside one another in the input: a row of the filter, or else the channels of one place.
    run = side if lanes == 1 else channels
    count = len(outputs)
    for i in range(side):
        for j in range(0, side * channels, run):
            place = i * row + j // channels * lanes
            target = weight + (i * side * channels + j) * step
            tap = 0
            while tap < run:
                left = run - tap
                y_at, x_at = target + tap * step, place + tap
                if stage.vectors == 1:
                    if left == 5:
                        _taps_5x1(gradient, y_at, step, x, 0, x, x_at, outputs, conv, 0, count)
                        tap += 5
                    elif left >= 4 and left != 6:
                        _taps_4x1(gradient, y_at, step, x, 0, x, x_at, outputs, conv, 0, count)
                        tap += 4
                    elif left >= 3:
                        _taps_3x1(gradient, y_at, step, x, 0, x, x_at, outputs, conv, 0, count)
                        tap += 3
                    else:
                        _taps_1x1(gradient, y_at, step, x, 0, x, x_at, outputs, conv, 0, count)
                        tap += 1
                elif left == 5:
                    _taps_5x2(gradient, y_at, step, x, 0, x, x_at, outputs, conv, 0, count)
                    tap += 5
                elif left >= 4 and left != 6:
                    _taps_4x2(gradient, y_at, step, x, 0, x, x_at, outputs, conv, 0, count)
                    tap += 4
                elif left >= 3:
                    _taps_3x2(gradient, y_at, step, x, 0, x, x_at, outputs, conv, 0, count)
                    tap += 3
                else:
                    _taps_1x2(gradient, y_at, step, x, 0, x, x_at, outputs, conv, 0, count)
                    tap += 1


@kernel
def lay_out_for_input(stage: Any, packed: Any, filters: Any) -> None:
    """Write filters as (channels out, kernel, kernel, lanes in): a run for each row of taps."""
    side, channels, lanes = stage.kernel_size, stage.in_channels, stage.in_lanes
    step = stage.vectors * LANES
    taps = side * side
    for o in range(stage.out_channels):
        block, lane = o // step, o % step
        for tap in range(taps):
            to = (o * taps + tap) * lanes
            for c in range(channels):
                from_ = stage.weight + ((block * taps + tap) * channels + c) * step + lane
                filters[to + c] = packed[from_]


@kernel
def add_to_input(stage: Any, dy: Any, mask: Any, filters: Any, dx: Any) -> None:
    """Add the gradient of the input with its border, (H, W, lanes), position by position.

    Only positions that receive gradient are visited: with pooling one of four, and of those, with
    ReLU, the ones that are alive.
    """
    side, lanes = stage.kernel_size, stage.in_lanes
    row = (stage.width + 2 * stage.padding) * lanes
    run = side * lanes
    for r in range(stage.out_height):
        for c in range(stage.out_width):
            cell = (r * stage.out_width + c) * stage.out_lanes
            for o in range(stage.out_channels):
                gradient = dy[cell + o]
                if gradient == 0:
                    continue
                bits = mask[cell + o] if stage.pool_size else 1
                step = 2 if stage.pool_size else 1
                for position in range(4):
                    if (bits >> position) & 1:
                        at = (r * step + position // 2) * row + (c * step + position % 2) * lanes
                        for i in range(side):
                            taps = (o * side + i) * run
                            add_scaled(dx, at + i * row, filters, taps, gradient, run // LANES)


@kernel
def add_bias_gradient(stage: Any, dy: Any, mask: Any, gradient: Any) -> None:
    """Add the gradient of the biases: each output's, as often as it was handed on."""
    for cell in range(0, len(dy), stage.out_lanes):
        for o in range(stage.out_channels):
            times = 1
            if stage.pool_size and stage.all_ties:
                bits = mask[cell + o]
                times = (bits & 1) + (bits >> 1 & 1) + (bits >> 2 & 1) + (bits >> 3 & 1)
            gradient[stage.bias + o] += times * dy[cell + o]


@kernel
def finish(stage: Any, y: Any) -> None:
    """Activate, and keep what fills up the channels at 0."""
    activate(stage.activation, y)
    clear_filling(y, stage.out_lanes, stage.out_channels)
