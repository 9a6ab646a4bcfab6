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

from backends.numba.kernels.compilation import inlined_kernel, kernel
from backends.numba.kernels.vectors import (
    LANES,
    add_multiple,
    maximum_of_four,
    outer_products,
    pooled_convolution,
    pooled_tap_products,
    spread_to_four,
    tap_products,
)
from backends.numba.kernels.views import copy, fill, part

# So many outputs at once as leave their sums in registers, for one and for two vectors of channels,
# and for an input with one channel or with lanes.
_forward_7x1_plain = outer_products(7, 1, x_step=1)
_forward_1x1_plain = outer_products(1, 1, x_step=1)
_forward_5x2_plain = outer_products(5, 2, x_step=1)
_forward_1x2_plain = outer_products(1, 2, x_step=1)
_forward_7x1_lanes = outer_products(7, 1, x_step=LANES)
_forward_5x2_lanes = outer_products(5, 2, x_step=LANES)
_forward_5x2_wide = outer_products(5, 2, x_step=2 * LANES)
# One channel, filters of 3×3, pooled: nothing but the pooled maps is written.
_pooled_3x3 = pooled_convolution(3)
_pooled_taps_3x3 = pooled_tap_products(3)
_add_5, _add_3, _add_1 = (add_multiple(vectors) for vectors in (5, 3, 1))
# So many taps at once: taps of a band, bands, vectors.
_taps_5x2x1 = tap_products(5, 2, 1)
_taps_5x1x1 = tap_products(5, 1, 1)
_taps_3x3x1 = tap_products(3, 3, 1)
_taps_3x1x1 = tap_products(3, 1, 1)
_taps_1x1x1 = tap_products(1, 1, 1)
_taps_5x1x2 = tap_products(5, 1, 2)
_taps_3x2x2 = tap_products(3, 2, 2)
_taps_3x1x2 = tap_products(3, 1, 2)
_taps_1x1x2 = tap_products(1, 1, 2)


@kernel
def stays_in_registers(stage: Any) -> Any:
    """Say whether all taps of a block of channels, and a window of outputs, fit the registers."""
    return (
        stage.pool_size == 2
        and stage.kernel_size == 3
        and stage.in_lanes == 1
        and stage.vectors == 1
    )


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
                _forward_7x1_plain(conv, y_at, step, start, x, from_, offsets, w, w_at, taps)
            else:
                _forward_7x1_lanes(conv, y_at, step, start, x, from_, offsets, w, w_at, taps)
            column += 7
    elif vectors == 2 and columns >= 5 and lanes <= 2 * LANES:
        while column < columns:
            column = min(column, columns - 5)
            y_at, from_ = at + column * step, x_at + column * lanes
            if lanes == 1:
                _forward_5x2_plain(conv, y_at, step, start, x, from_, offsets, w, w_at, taps)
            elif lanes == LANES:
                _forward_5x2_lanes(conv, y_at, step, start, x, from_, offsets, w, w_at, taps)
            else:
                _forward_5x2_wide(conv, y_at, step, start, x, from_, offsets, w, w_at, taps)
            column += 5
    else:
        for column in range(columns):
            y_at, from_ = at + column * step, x_at + column * lanes
            if vectors == 1:
                _forward_1x1_plain(conv, y_at, step, start, x, from_, offsets, w, w_at, taps)
            else:
                _forward_1x2_plain(conv, y_at, step, start, x, from_, offsets, w, w_at, taps)


@inlined_kernel
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
        if stays_in_registers(stage):
            for r in range(stage.out_height):
                for c in range(stage.out_width):
                    cell = (r * stage.out_width + c) * stage.out_lanes + block * step
                    x_at = 2 * r * row + 2 * c
                    _pooled_3x3(y, mask, cell, start, x, x_at, row, packed, w_at, stage.all_ties)
            continue
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
def add_pooled_tap_products(
    stage: Any, block: int, x: Any, dy: Any, mask: Any, gradient: Any, weight: int
) -> None:
    """Add the gradient of a block's filters of 3×3, from that of its pooled feature maps."""
    row = (stage.width + 2 * stage.padding) * stage.in_lanes
    for r in range(stage.out_height):
        cell = r * stage.out_width * stage.out_lanes + block * LANES
        _pooled_taps_3x3(
            gradient, weight, x, 2 * r * row, row, dy, mask, cell, stage.out_lanes, stage.out_width
        )


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
    # A band is a row of the filter, or else the channels of one position.
    rounds, taps, across = (1, side, row) if lanes == 1 else (side, channels, lanes)
    for i in range(rounds):
        at = weight + i * side * taps * step
        _add_bands(stage.vectors, side, taps, across, gradient, at, x, i * row, outputs, conv)


@kernel
def _add_bands(
    vectors: int,
    bands: int,
    taps: int,
    x_band: int,
    gradient: Any,
    gradient_at: int,
    x: Any,
    x_at: int,
    outputs: Any,
    conv: Any,
) -> None:
    """Add the gradient of `bands` bands of `taps` taps each, as many at once as registers hold."""
    step = vectors * LANES
    y_band = taps * step
    count = len(outputs)
    threes = taps == 3 or taps == 6
    band = 0
    while band < bands:
        left = bands - band
        together = 1
        if threes and left >= 2:
            together = 3 if vectors == 1 and left >= 3 else 2 if vectors == 2 else 1
        elif taps == 5 and vectors == 1 and left >= 2:
            together = 2
        tap = 0
        while tap < taps:
            y_at = gradient_at + band * y_band + tap * step
            from_ = x_at + band * x_band + tap
            rest = taps - tap
            run = 5 if rest == 5 or rest >= 8 else 3 if rest >= 3 else 1
            if vectors == 1:
                if together == 3:
                    _taps_3x3x1(gradient, y_at, y_band, x, from_, x_band, outputs, conv, count)
                elif together == 2:
                    _taps_5x2x1(gradient, y_at, y_band, x, from_, x_band, outputs, conv, count)
                elif run == 5:
                    _taps_5x1x1(gradient, y_at, y_band, x, from_, x_band, outputs, conv, count)
                elif run == 3:
                    _taps_3x1x1(gradient, y_at, y_band, x, from_, x_band, outputs, conv, count)
                else:
                    _taps_1x1x1(gradient, y_at, y_band, x, from_, x_band, outputs, conv, count)
            elif together == 2:
                _taps_3x2x2(gradient, y_at, y_band, x, from_, x_band, outputs, conv, count)
            elif run == 5:
                _taps_5x1x2(gradient, y_at, y_band, x, from_, x_band, outputs, conv, count)
            elif run == 3:
                _taps_3x1x2(gradient, y_at, y_band, x, from_, x_band, outputs, conv, count)
            else:
                _taps_1x1x2(gradient, y_at, y_band, x, from_, x_band, outputs, conv, count)
            tap += run
        band += together


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
                            _add_run(dx, at + i * row, filters, taps, gradient, run)


@kernel
def _add_run(y: Any, y_at: int, x: Any, x_at: int, scale: Any, count: int) -> None:
    """Add a multiple of `count` numbers, whole vectors, to others."""
    at = 0
    while at < count:
        left = (count - at) // LANES
        if left >= 5:
            _add_5(y, y_at + at, x, x_at + at, scale)
            at += 5 * LANES
        elif left >= 3:
            _add_3(y, y_at + at, x, x_at + at, scale)
            at += 3 * LANES
        else:
            _add_1(y, y_at + at, x, x_at + at, scale)
            at += LANES


@kernel
def add_bias_gradient(stage: Any, dy: Any, mask: Any, gradient: Any) -> None:
    """Add the gradient of the biases: each output's, as often as it was handed on."""
    if not (stage.pool_size and stage.all_ties):
        for cell in range(0, stage.out_height * stage.out_width * stage.out_lanes, LANES):
            _add_1(gradient, stage.bias + cell % stage.out_lanes, dy, cell, dy.dtype.type(1))
        return
    for cell in range(0, stage.out_height * stage.out_width * stage.out_lanes, stage.out_lanes):
        for o in range(stage.out_channels):
            bits = mask[cell + o]
            times = (bits & 1) + (bits >> 1 & 1) + (bits >> 2 & 1) + (bits >> 3 & 1)
            gradient[stage.bias + o] += times * dy[cell + o]
