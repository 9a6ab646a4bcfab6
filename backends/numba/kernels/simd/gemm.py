"""Matrix products in register tiles.

The sums of a tile of y stay in registers while the loop runs along the inner dimension k. The
largest tiles have ten sums, which leaves registers for the operands (AVX2 has 16):

                   w   ── l ──▶                        w   ── k ──▶
                   ┌─────────┐                         ┌─────────────┐
                 k │▒▒▒▒▒▒▒▒▒│ load some             c │▒▒▒▒▒▒▒▒▒▒▒▒▒│ load 1 vector
                   └─────────┘ vectors                 └─────────────┘ per column
       x  ─ k ▶    y                        x ── k ──▶     y
       ┌───────┐   ┌─────────┐              ┌─────────┐    ┌────────┐
     r │▒      │ ▶ │sums     │            r │▒▒▒▒▒▒▒▒▒│ ▶  │sums    │ one vector per sum,
       └───────┘   └─────────┘              └─────────┘    └────────┘ added up at the end
       load and broadcast 1 number
       gemm_outer                           gemm_dot
"""

from backends.numba.kernels.simd.emitter import (
    Accumulator,
    Emitter,
    Index,
    Pointer,
    simd_kernel,
)


# An array is a pointer and a stride here, because LLVM functions take no structs.
@simd_kernel
def gemm_outer(  # noqa: PLR0913
    emit: Emitter, y: Pointer, y_stride: Index, x: Pointer, x_row: Index, x_column: Index,
    w: Pointer, w_stride: Index, rows: Index, width: Index, count: Index,
) -> None:  # fmt: skip
    """Add a product of matrices to y.

    y[r·y_stride + l] += Σₖ x[r·x_row + k·x_column] · w[k·w_stride + l]

    for r < rows, k < count and l < width, in whole vectors. To multiply by xᵀ, swap
    the strides of x.
    """
    for vector, vectors in emit.tiles(width // emit.lanes, (2, 1)):
        for row, height in emit.tiles(rows, (5, 1)):
            lanes = range(0, vectors * emit.lanes, emit.lanes)
            y_rows = (y + row * y_stride + vector * emit.lanes).rows(y_stride, height)
            x_rows = (x + row * x_row).rows(x_row, height)
            w_tile = w + vector * emit.lanes
            sums = [[Accumulator(emit, y_row.load(lane)) for lane in lanes] for y_row in y_rows]
            with emit.loop(count) as k:
                w_row = w_tile + k * w_stride
                weights = [w_row.load(lane) for lane in lanes]
                for x_pointer, row_sums in zip(x_rows, sums, strict=True):
                    factor = x_pointer.load_broadcast(k * x_column)
                    for total, weight in zip(row_sums, weights, strict=True):
                        total.add_product(factor, weight)
            for y_row, row_sums in zip(y_rows, sums, strict=True):
                for lane, total in zip(lanes, row_sums, strict=True):
                    y_row.store(total.value(), lane)


@simd_kernel
def gemm_dot(
    emit: Emitter, y: Pointer, y_stride: Index, x: Pointer, x_stride: Index,
    w: Pointer, w_stride: Index, rows: Index, columns: Index, count: Index,
) -> None:  # fmt: skip
    """Set y to x wᵀ, from rows of x and rows of w.

    y[r·y_stride + c] = Σₖ x[r·x_stride + k] · w[c·w_stride + k]

    for r < rows, c < columns and k < count, in whole vectors.
    """
    # Five columns, because typical layers have 10, 30, 50 or 120 outputs.
    for row, height in emit.tiles(rows, (2, 1)):
        for column, width in emit.tiles(columns, (5, 1)):
            y_rows = (y + row * y_stride + column).rows(y_stride, height)
            x_rows = (x + row * x_stride).rows(x_stride, height)
            w_rows = (w + column * w_stride).rows(w_stride, width)
            zero = emit.constant(0.0)
            sums = [[Accumulator(emit, zero) for _ in w_rows] for _ in x_rows]
            with emit.loop(count // emit.lanes) as vector:
                k = vector * emit.lanes
                factors = [x_row.load(k) for x_row in x_rows]
                for number, w_row in enumerate(w_rows):
                    weight = w_row.load(k)
                    for factor, row_sums in zip(factors, sums, strict=True):
                        row_sums[number].add_product(weight, factor)
            for y_row, row_sums in zip(y_rows, sums, strict=True):
                for number, total in enumerate(row_sums):
                    y_row.store_number(emit.sum_of_lanes(total.value()), number)
