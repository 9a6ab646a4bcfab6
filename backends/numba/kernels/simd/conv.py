"""Convolutions with 2×2 max-pooling, and the loop of their gradients, in register tiles.

Each vector lane computes one output channel. Tap k of all filters is one row of `width` weights.
The output at position p is the sum over k of tap k times x[offset of p + offsets[k]]. The offsets
of the taps are the same for all positions:

    x (rows of the input)         w (taps, lanes)          y (positions, lanes)
    ┌───┬───┬───┬───┬───┐         tap 0 ▒▒▒▒▒▒▒▒           position 0 ▒▒▒▒▒▒▒▒
    │ 0 │ 1 │ 2 │   │   │         tap 1 ▒▒▒▒▒▒▒▒           position 1 ▒▒▒▒▒▒▒▒
    ├───┼───┼───┼───┼───┤         ...                      ...
    │ 3 │ 4 │ 5 │   │   │         each tap is loaded once and used for all positions of the tile
    └───┴───┴───┴───┴───┘
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from backends.numba.kernels.simd.emitter import (
    Accumulator,
    Emitter,
    Index,
    Pointer,
    simd_kernel,
)
from backends.numba.kernels.simd.pooling import (
    CHANNEL_LANES,
    POSITIONS,
    channel_kernel,
    gradients_of_patches,
    store_max,
)

# A vector of this kind fills one register, but has at least one lane per channel.
wide_kernel = partial(simd_kernel, min_lanes=CHANNEL_LANES)


def conv2d(width: int) -> Callable[..., None]:
    """Return the kernel that convolves one image with `width` filters.

    y[r·y_row + c·y_column + l]
        = bias[l] + Σₖ x[r·x_row + c·x_column + offsets[k]] · w[k·width + l]

    for r < `rows`, c < `columns`, k < `count` and l < `width`. If `pools` is not 0, rows and
    columns must be even, and y and the tie mask are set for the pooled outputs. `pools` is 1 if
    only the first of several equal maxima has its bit set, 2 if all have.
    """

    # An array is a pointer and strides here, because LLVM functions take no structs.
    @(channel_kernel if width == CHANNEL_LANES else wide_kernel)
    def kernel(  # noqa: PLR0913
        emit: Emitter, y: Pointer, mask: Pointer, y_row: Index, y_column: Index, bias: Pointer,
        x: Pointer, x_row: Index, x_column: Index, w: Pointer, offsets: Pointer, count: Index,
        rows: Index, columns: Index, pools: Index,
    ) -> None:  # fmt: skip
        lanes = range(0, width, emit.lanes)
        # Tiles of two rows have eight sums, which hide the latency of additions.
        sizes = (4, 2, 1) if len(lanes) == 1 else (2, 1)
        for row, height in emit.tiles(rows, (2, 1)):
            for column, length in emit.tiles(columns, sizes):
                corner = x + row * x_row + column * x_column
                inputs = {
                    (r, c): corner + x_row * r + x_column * c
                    for r in range(height)
                    for c in range(length)
                }
                sums = {
                    position: [Accumulator(emit, bias.load(lane)) for lane in lanes]
                    for position in inputs
                }
                with emit.loop(count) as k:
                    offset = offsets.load_index(k)
                    tap = w + k * width
                    weights = [tap.load(lane) for lane in lanes]
                    for position, source in inputs.items():
                        factor = source.load_broadcast(offset)
                        for total, weight in zip(sums[position], weights, strict=True):
                            total.add_product(factor, weight)
                with emit.either(pools) as (pooled, plain):
                    with pooled:
                        for c in range(0, length - 1, 2) if height == 2 else ():
                            at = row // 2 * y_row + (column + c) // 2 * y_column
                            for number, lane in enumerate(lanes):
                                patch = [sums[r, c + s][number].value() for r, s in POSITIONS]
                                store_max(emit, patch, y + at + lane, mask + at + lane, pools - 1)
                    with plain:
                        for (r, c), totals in sums.items():
                            at = (row + r) * y_row + (column + c) * y_column
                            for lane, total in zip(lanes, totals, strict=True):
                                y.store(total.value(), at + lane)

    return kernel


def conv_max_pool(side: int) -> Callable[..., None]:
    """Return the kernel that convolves one image of one channel and pools 2×2 patches.

    It computes `CHANNEL_LANES` channels with filters of side × side taps, rows·columns pooled
    outputs y and their tie mask. The outputs before pooling stay in registers. If a vector is twice
    as wide as the channels, it holds two neighboring outputs (channel 0 of both, channel 1 of both,
    and so on), and two patches are computed at once. If the number of patches in a row is odd, the
    memory after the last one is overwritten.
    """

    @wide_kernel
    def kernel(
        emit: Emitter, y: Pointer, mask: Pointer, bias: Pointer, x: Pointer, x_row: Index,
        w: Pointer, rows: Index, columns: Index, all_ties: Index,
    ) -> None:  # fmt: skip
        together = emit.lanes // CHANNEL_LANES
        taps = [(i, j) for i in range(side) for j in range(side)]
        weights = {
            tap: w.load_spread(number * CHANNEL_LANES, CHANNEL_LANES)
            for number, tap in enumerate(taps)
        }
        start = bias.load_spread(0, CHANNEL_LANES)
        groups = (columns + (together - 1)) // together
        with emit.loop(rows) as row, emit.loop(groups) as group:
            corner = x + row * 2 * x_row + group * (2 * together)
            sums = _sums_of_patches(emit, weights, start, corner.rows(x_row, side + 1))
            at = row * columns * CHANNEL_LANES + group * emit.lanes
            values = [sums[position] for position in POSITIONS]
            if together == 2:
                values = [
                    emit.shuffle(sums[down, 0], sums[down, 1], range(right, 2 * emit.lanes, 2))
                    for down, right in POSITIONS
                ]
            store_max(emit, values, y + at, mask + at, all_ties)

    return kernel


def _sums_of_patches(
    emit: Emitter, weights: dict[tuple[int, int], Any], start: Any, lines: list[Pointer]
) -> dict[tuple[int, int], Any]:
    """Emit the outputs of one or two patches, by row and number of the vector in this row.

    Args:
        emit: the emitter.
        weights: taps by row and column.
        start: vector to which the products are added.
        lines: pointers to the rows of the input.
    """
    together = emit.lanes // CHANNEL_LANES
    # Two sums per output, of even and odd rows of taps, hide the latency of additions.
    sums = {(*output, parity): start for output in POSITIONS for parity in range(2)}
    for output in POSITIONS:
        sums[*output, 1] = emit.constant(0.0)
    for i, line in enumerate(lines):
        for j in range(len(lines) - 1 + together):
            factor = line.load_columns(j, together)
            for down, number in POSITIONS:
                weight = weights.get((i - down, j - number * together))
                if weight is not None:
                    key = down, number, (i - down) % 2
                    sums[key] = emit.multiply_add(factor, weight, sums[key])
    return {output: emit.builder.fadd(sums[*output, 0], sums[*output, 1]) for output in POSITIONS}


def conv_max_pool_wgrad(side: int) -> Callable[..., None]:
    """Return the kernel that adds to the gradient of the filters of `conv_max_pool`.

    Its vectors hold both outputs of a row of a patch if they are wide enough.
    """

    @wide_kernel
    def kernel(
        emit: Emitter, dw: Pointer, x: Pointer, x_row: Index, dy: Pointer, mask: Pointer,
        rows: Index, columns: Index,
    ) -> None:  # fmt: skip
        together = emit.lanes // CHANNEL_LANES
        taps = [(i, j) for i in range(side) for j in range(side)]
        sums = {tap: Accumulator(emit, emit.constant(0.0)) for tap in taps}
        with emit.loop(rows) as row, emit.loop(columns) as column:
            at = (row * columns + column) * CHANNEL_LANES
            gradients = gradients_of_patches(emit, dy + at, mask + at)
            corner = x + row * 2 * x_row + column * 2
            for i, line in enumerate(corner.rows(x_row, side + 1)):
                for j in range(side + 2 - together):
                    factor = line.load_columns(j, together)
                    for (down, right), gradient in gradients.items():
                        total = sums.get((i - down, j - right))
                        if total is not None:
                            total.add_product(factor, gradient)
        for number, tap in enumerate(taps):
            place, total = number * CHANNEL_LANES, sums[tap].value()
            gradient = dw.load_few(place, CHANNEL_LANES)
            for first in range(together):
                part = emit.shuffle(total, total, range(first, emit.lanes, together))
                gradient = emit.builder.fadd(gradient, part)
            dw.store(gradient, place)

    return kernel


# An array is a pointer and a stride here, because LLVM functions take no structs.
def _add_patches(  # noqa: PLR0913
    emit: Emitter, y: Pointer, y_row: Index, x: Pointer, x_row: Index, factors: Pointer,
    offsets: Pointer, stride: Index, count: Index, rows: Index, width: Index,
) -> None:  # fmt: skip
    """Add multiples of `count` patches of x to y.

    y[r·y_row + l] += Σₖ factors[k·stride] · x[r·x_row + offsets[k·stride] + l]

    for r < rows, k < count and l < width, a multiple of the lanes.
    """
    for first, vectors in emit.tiles(width // emit.lanes, (5, 3, 1)):
        heights = tuple(size for size in (6, 5, 3, 2, 1) if size * vectors <= emit.max_sums)
        for row, height in emit.tiles(rows, heights):
            lanes = range(0, vectors * emit.lanes, emit.lanes)
            y_rows = (y + row * y_row + first * emit.lanes).rows(y_row, height)
            x_rows = (x + row * x_row + first * emit.lanes).rows(x_row, height)
            sums = [[Accumulator(emit, y_line.load(lane)) for lane in lanes] for y_line in y_rows]
            with emit.loop(count) as k:
                factor = factors.load_broadcast(k * stride)
                offset = offsets.load_index(k * stride)
                for x_line, totals in zip(x_rows, sums, strict=True):
                    for lane, total in zip(lanes, totals, strict=True):
                        total.add_product(factor, x_line.load(offset + lane))
            for y_line, totals in zip(y_rows, sums, strict=True):
                for lane, total in zip(lanes, totals, strict=True):
                    y_line.store(total.value(), lane)


add_patches = channel_kernel(_add_patches)
# For patches at multiples of a wide vector, so that no vector crosses a cache line.
add_aligned_patches = wide_kernel(_add_patches)


@channel_kernel
def sum_of_rows(emit: Emitter, y: Pointer, x: Pointer, width: Index, count: Index) -> None:
    """Add the rows of x (count, width) to y; `width` is a multiple of CHANNEL_LANES."""
    with emit.loop(width // emit.lanes) as vector:
        lane = vector * emit.lanes
        # Four sums hide the latency of additions.
        sums = [Accumulator(emit, emit.constant(0.0)) for _ in range(4)]
        for row, height in emit.tiles(count, (4, 1)):
            for number in range(height):
                part = (x + (row + number) * width).load(lane)
                sums[number].add(part)
        total = y.load(lane)
        for part in sums:
            total = emit.builder.fadd(total, part.value())
        y.store(total, lane)
