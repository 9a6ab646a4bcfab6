"""Products of a sparse vector with a dense matrix, one sparse row at a time.

They compute a linear layer of sparse input: four of five pixels of MNIST are 0. The forward pass
reads only the rows of the weights (inputs, outputs) that belong to nonzero pixels, and the backward
pass changes only their gradients.

In training, the backward pass divides the rows of the weights among threads: each thread processes
some column groups (see `kernels.csr`) of all images. Two threads therefore never write to the same
row, and each row is a sum over the images in order. The forward pass divides the same rows in small
batches, and the images in large ones (see `kernels.epoch`).

A sparse vector is a list of column indices and a list of values:

    indices   3   17   18          table            y += Σₖ data[k] · table[indices[k]]
    data     .5    1   .25         row 3   ▒▒▒▒▒▒ ─┐
                                   row 17  ▒▒▒▒▒▒ ─┼─▶ y  ▒▒▒▒▒▒      (gather_axpy)
                                   row 18  ▒▒▒▒▒▒ ─┘

`scatter_axpy` is the transpose: it adds multiples of one dense vector to the same rows.

Cost: 2·n·outputs floating-point operations per image with n nonzero pixels, in each direction.
"""

from typing import Any

from backends.numba.kernels.simd.emitter import (
    MAX_ACCUMULATORS,
    Accumulator,
    Emitter,
    Index,
    Pointer,
    simd_kernel,
)

# Vectors that are computed together. A layer of 50 outputs, as in two recipes, has seven.
_TILE_SIZES = (8, 7, 4, 2, 1)
_MAX_UNROLL = 4


@simd_kernel
def gather_axpy(
    emit: Emitter, y: Pointer, table: Pointer, stride: Index, width: Index,
    indices: Pointer, data: Pointer, count: Index,
) -> None:  # fmt: skip
    """Add the rows of a table that a sparse vector selects to y.

    y[l] += Σₖ data[k] · table[indices[k]·stride + l]

    for k < count and l < width, in whole vectors.
    """
    for first, vectors in emit.tiles(width // emit.lanes, _TILE_SIZES):
        # An addition waits about five cycles for the previous addition to the same accumulator. If
        # registers are left, several rows therefore have separate accumulators, which are added at
        # the end.
        unroll = max(1, min(_MAX_UNROLL, MAX_ACCUMULATORS // vectors))
        y_tile, table_tile = y + first * emit.lanes, table + first * emit.lanes
        lanes = range(0, vectors * emit.lanes, emit.lanes)
        zero = emit.constant(0.0)
        first_sums = [Accumulator(emit, y_tile.load(lane)) for lane in lanes]
        other_sums = [[Accumulator(emit, zero) for _ in lanes] for _ in range(unroll - 1)]
        sums = [first_sums, *other_sums]
        rounds = count // unroll
        with emit.loop(rounds) as turn:
            for number, row_sums in enumerate(sums):
                k = turn * unroll + number
                _add_row(table_tile + indices.load_index(k) * stride, data, k, row_sums)
        done = rounds * unroll
        with emit.loop(count - done) as rest:
            k = done + rest
            _add_row(table_tile + indices.load_index(k) * stride, data, k, first_sums)
        for lane, *totals in zip(lanes, *sums, strict=True):
            value = totals[0].value()
            for total in totals[1:]:
                value = emit.builder.fadd(value, total.value())
            y_tile.store(value, lane)


def _add_row(row: Pointer, data: Pointer, k: Index, sums: list[Accumulator]) -> None:
    """Emit the addition of data[k] · row to accumulators, one per vector."""
    parts = [row.load(vector * row.lanes) for vector in range(len(sums))]
    factor = data.load_broadcast(k)
    for total, part in zip(sums, parts, strict=True):
        total.add_product(factor, part)


@simd_kernel
def scatter_axpy(
    emit: Emitter, table: Pointer, stride: Index, width: Index,
    indices: Pointer, data: Pointer, count: Index, x: Pointer, scale: Any,
) -> None:  # fmt: skip
    """Add multiples of x to the rows of a table that a sparse vector selects.

    table[indices[k]·stride + l] += scale · data[k] · x[l]

    for k < count and l < width, in whole vectors.
    """
    for first, vectors in emit.tiles(width // emit.lanes, _TILE_SIZES):
        x_tile, table_tile = x + first * emit.lanes, table + first * emit.lanes
        lanes = range(0, vectors * emit.lanes, emit.lanes)
        scaled = [emit.builder.fmul(scale, x_tile.load(lane)) for lane in lanes]
        with emit.loop(count) as k:
            row = table_tile + indices.load_index(k) * stride
            factor = data.load_broadcast(k)
            for lane, part in zip(lanes, scaled, strict=True):
                row.store(emit.multiply_add(factor, part, row.load(lane)), lane)


@simd_kernel
def prefetch(emit: Emitter, begin: Pointer, end: Pointer) -> None:
    """Start to load the cache lines from `begin` up to `end`."""
    emit.prefetch(begin, end)
