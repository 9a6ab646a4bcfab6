"""Register tiles of convolutions, with and without 2×2 max-pooling, and of their weight gradients.

Each vector lane computes one output channel. Tap k of all filters is one row of weights, with
`vectors`·CHANNEL_LANES numbers. The output at position p is the sum over k of tap k times
x[p·x_stride + offsets[k]]. The offsets are the same for all positions:

    x (rows of the input)         w (taps, lanes)          y (positions, lanes)
    ┌───┬───┬───┬───┬───┐         tap 0 ▒▒▒▒▒▒▒▒           position 0 ▒▒▒▒▒▒▒▒
    │ 0 │ 1 │ 2 │   │   │         tap 1 ▒▒▒▒▒▒▒▒           position 1 ▒▒▒▒▒▒▒▒
    ├───┼───┼───┼───┼───┤         ...                      ...
    │ 3 │ 4 │ 5 │   │   │         each tap is loaded once and used for all positions of the tile
    └───┴───┴───┴───┴───┘
"""

from collections.abc import Callable
from typing import Any

from backends.numba.kernels.simd.emitter import (
    Accumulator,
    Emitter,
    Index,
    Pointer,
)
from backends.numba.kernels.simd.pooling import (
    CHANNEL_LANES,
    POSITIONS,
    channel_kernel,
    gradients_of_patch,
    store_max,
)


def conv_tile(positions: int, vectors: int, *, x_stride: int) -> Callable[..., None]:
    """Return the kernel that computes neighboring positions of a convolution.

    y[p·width + l] = bias[l] + Σₖ x[p·x_stride + offsets[k]] · w[k·width + l]

    for p < `positions`, k < count and l < width = `vectors`·CHANNEL_LANES.
    """
    width = vectors * CHANNEL_LANES

    @channel_kernel
    def kernel(
        emit: Emitter, y: Pointer, bias: Pointer, x: Pointer, offsets: Pointer, w: Pointer,
        count: Index,
    ) -> None:  # fmt: skip
        lanes = [vector * CHANNEL_LANES for vector in range(vectors)]
        sums = [[Accumulator(emit, bias.load(lane)) for lane in lanes] for _ in range(positions)]
        with emit.loop(count) as k:
            offset = offsets.load_index(k)
            tap = w + k * width
            weights = [tap.load(lane) for lane in lanes]
            for position, position_sums in enumerate(sums):
                factor = x.load_broadcast(offset + position * x_stride)
                for total, weight in zip(position_sums, weights, strict=True):
                    total.add_product(factor, weight)
        for position, position_sums in enumerate(sums):
            for lane, total in zip(lanes, position_sums, strict=True):
                y.store(total.value(), position * width + lane)

    return kernel


def conv_wgrad_tile(taps: int, rows: int, vectors: int) -> Callable[..., None]:
    """Return the kernel that adds to the gradient of a group of filter taps.

    dw[r·dw_row + t·width + l] += Σₖ x[r·x_row + t + offsets[k]] · dy[k·width + l]

    for r < `rows`, t < `taps`, k < count and l < width = `vectors`·CHANNEL_LANES. The taps of one
    row read neighboring numbers of x. Several rows are computed together because more accumulators
    hide the latency of additions.
    """
    width = vectors * CHANNEL_LANES

    @channel_kernel
    def kernel(
        emit: Emitter, dw: Pointer, dw_row: Index, x: Pointer, x_row: Index, offsets: Pointer,
        dy: Pointer, count: Index,
    ) -> None:  # fmt: skip
        lanes = [vector * CHANNEL_LANES for vector in range(vectors)]
        x_rows = x.rows(x_row, rows)
        dw_rows = dw.rows(dw_row, rows)
        sums = [
            [
                [Accumulator(emit, dw_taps.load(tap * width + lane)) for lane in lanes]
                for tap in range(taps)
            ]
            for dw_taps in dw_rows
        ]
        with emit.loop(count) as k:
            offset = offsets.load_index(k)
            gradient = dy + k * width
            gradients = [gradient.load(lane) for lane in lanes]
            for x_taps, row_sums in zip(x_rows, sums, strict=True):
                for tap, tap_sums in enumerate(row_sums):
                    factor = x_taps.load_broadcast(offset + tap)
                    for total, part in zip(tap_sums, gradients, strict=True):
                        total.add_product(factor, part)
        for dw_taps, row_sums in zip(dw_rows, sums, strict=True):
            for tap, tap_sums in enumerate(row_sums):
                for lane, total in zip(lanes, tap_sums, strict=True):
                    dw_taps.store(total.value(), tap * width + lane)

    return kernel


def conv_max_pool(side: int) -> Callable[..., None]:
    """Return the kernel that convolves one input channel and pools one 2×2 patch in registers.

    It computes the four outputs of the patch in `CHANNEL_LANES` channels, with filters of side ×
    side taps, from side + 1 rows of x. It stores their maximum and tie mask, as `max_pool_2x2`
    does.
    """

    @channel_kernel
    def kernel(
        emit: Emitter, y: Pointer, mask: Pointer, bias: Pointer, x: Pointer, x_row: Index,
        w: Pointer, all_ties: Index,
    ) -> None:  # fmt: skip
        weights = {
            (i, j): w.load((i * side + j) * CHANNEL_LANES) for i in range(side) for j in range(side)
        }
        sums = dict.fromkeys(POSITIONS, bias.load())
        for i, row in enumerate(x.rows(x_row, side + 1)):
            for j in range(side + 1):
                factor = row.load_broadcast(j)
                for down, right in POSITIONS:
                    weight = weights.get((i - down, j - right))
                    if weight is not None:
                        sums[down, right] = emit.multiply_add(factor, weight, sums[down, right])
        store_max(emit, [sums[position] for position in POSITIONS], y, mask, all_ties)

    return kernel


def conv_max_pool_wgrad(side: int) -> Callable[..., None]:
    """Return the kernel that adds to the gradient of the filters of `conv_max_pool`.

    It processes one row of `count` patches, whose gradients and masks are `stride` apart.
    """

    @channel_kernel
    def kernel(
        emit: Emitter, dw: Pointer, x: Pointer, x_row: Index, dy: Pointer, mask: Pointer,
        stride: Index, count: Index,
    ) -> None:  # fmt: skip
        places = {(i, j): (i * side + j) * CHANNEL_LANES for i in range(side) for j in range(side)}
        sums = {tap: Accumulator(emit, dw.load(place)) for tap, place in places.items()}
        rows = x.rows(x_row, side + 1)
        with emit.loop(count) as patch:
            at = patch * stride
            gradients = gradients_of_patch(emit, dy + at, mask + at)
            column = patch * 2
            for i, row in enumerate(rows):
                for j in range(side + 1):
                    factor = row.load_broadcast(column + j)
                    for (down, right), gradient in zip(POSITIONS, gradients, strict=True):
                        total = sums.get((i - down, j - right))
                        if total is not None:
                            total.add_product(factor, gradient)
        for tap, place in places.items():
            dw.store(sums[tap].value(), place)

    return kernel


@channel_kernel
def axpy(emit: Emitter, y: Pointer, x: Pointer, scale: Any, count: Index) -> None:
    """Add scale · x to y, for `count` numbers, in whole vectors."""
    # Filter rows, for which this is called, often have five or three vectors.
    for first, vectors in emit.tiles(count // emit.lanes, (5, 3, 1)):
        for vector in range(vectors):
            at = (first + vector) * emit.lanes
            y.store(emit.multiply_add(scale, x.load(at), y.load(at)), at)
