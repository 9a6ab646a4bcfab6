"""Products of a sparse vector with a dense matrix, one sparse row at a time.

A sparse vector is a list of column indices and a list of values:

    indices   3   17   18          table            y += Σₖ data[k] · table[indices[k]]
    data     .5    1   .25         row 3   ▒▒▒▒▒▒ ─┐
                                   row 17  ▒▒▒▒▒▒ ─┼─▶ y  ▒▒▒▒▒▒      (gather_axpy)
                                   row 18  ▒▒▒▒▒▒ ─┘

`scatter_axpy` is the transpose: it adds multiples of one dense vector to the same rows.
"""

from collections.abc import Callable
from typing import Any

from backends.numba.kernels.simd.emitter import (
    LANES,
    MAX_ACCUMULATORS,
    Accumulator,
    Emitter,
    Index,
    Pointer,
    simd_kernel,
)

_MAX_UNROLL = 4


def gather_axpy(vectors: int) -> Callable[..., None]:
    """Return the kernel that adds the rows of a table that a sparse vector selects.

    y[l] += Σₖ data[k] · table[indices[k]·stride + l]

    for k < count and l < `vectors`·LANES. An addition waits about five cycles for the previous
    addition to the same accumulator. If registers are left, several rows therefore have separate
    accumulators, which are added at the end.
    """
    unroll = max(1, min(_MAX_UNROLL, MAX_ACCUMULATORS // vectors))

    @simd_kernel
    def kernel(
        emit: Emitter, y: Pointer, table: Pointer, stride: Index,
        indices: Pointer, data: Pointer, count: Index,
    ) -> None:  # fmt: skip
        lanes = [vector * LANES for vector in range(vectors)]
        first_sums = [Accumulator(emit, y.load(lane)) for lane in lanes]
        other_sums = [
            [Accumulator(emit, emit.constant(0.0)) for _ in lanes] for _ in range(unroll - 1)
        ]
        sums = [first_sums, *other_sums]

        def add_row(k: Index, row_sums: list[Accumulator]) -> None:
            row = table + indices.load_index(k) * stride
            parts = [row.load(lane) for lane in lanes]
            factor = data.load_broadcast(k)
            for total, part in zip(row_sums, parts, strict=True):
                total.add_product(factor, part)

        rounds = count // unroll
        with emit.loop(rounds) as turn:
            for number, row_sums in enumerate(sums):
                add_row(turn * unroll + number, row_sums)
        done = rounds * unroll
        with emit.loop(count - done) as rest:
            add_row(done + rest, first_sums)
        for lane, *totals in zip(lanes, *sums, strict=True):
            value = totals[0].value()
            for total in totals[1:]:
                value = emit.builder.fadd(value, total.value())
            y.store(value, lane)

    return kernel


def scatter_axpy(vectors: int) -> Callable[..., None]:
    """Return the kernel that adds multiples of x to the rows that a sparse vector selects.

    table[indices[k]·stride + l] += scale · data[k] · x[l]

    for k < count and l < `vectors`·LANES.
    """

    @simd_kernel
    def kernel(
        emit: Emitter, table: Pointer, stride: Index,
        indices: Pointer, data: Pointer, count: Index, x: Pointer, scale: Any,
    ) -> None:  # fmt: skip
        lanes = [vector * LANES for vector in range(vectors)]
        scaled = [emit.builder.fmul(scale, x.load(lane)) for lane in lanes]
        with emit.loop(count) as k:
            row = table + indices.load_index(k) * stride
            factor = data.load_broadcast(k)
            for lane, part in zip(lanes, scaled, strict=True):
                row.store(emit.multiply_add(factor, part, row.load(lane)), lane)

    return kernel
