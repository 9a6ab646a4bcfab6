"""Register tiles of matrix products.

A tile of y keeps its sums in registers while the loop runs along the inner dimension k:

                   w   ── l ──▶                        w   ── k ──▶
                   ┌─────────┐                         ┌─────────────┐
                 k │▒▒▒▒▒▒▒▒▒│ load `vectors`        c │▒▒▒▒▒▒▒▒▒▒▒▒▒│ load 1 vector
                   └─────────┘ vectors                 └─────────────┘ per column
       x  ─ k ▶    y                        x ── k ──▶     y
       ┌───────┐   ┌─────────┐              ┌─────────┐    ┌────────┐
     r │▒      │ ▶ │sums     │            r │▒▒▒▒▒▒▒▒▒│ ▶  │sums    │ one vector per sum,
       └───────┘   └─────────┘              └─────────┘    └────────┘ added up at the end
       load and broadcast 1 number
       gemm_outer_tile                      gemm_dot_tile
"""

from collections.abc import Callable
from typing import Any

from backends.numba.kernels.simd.emitter import (
    LANES,
    Accumulator,
    Emitter,
    Index,
    Pointer,
    simd_kernel,
)


def gemm_outer_tile(rows: int, vectors: int) -> Callable[..., None]:
    """Return the kernel that adds a product of matrices to a tile of y.

    y[r·y_stride + l] += Σₖ x[r·x_row + k·x_column] · w[k·w_stride + l]

    for r < `rows`, k < count and l < `vectors`·LANES. The strides of x swapped give the product
    with xᵀ.
    """

    @simd_kernel
    def kernel(
        emit: Emitter, y: Pointer, y_stride: Index, x: Pointer, x_row: Index, x_column: Index,
        w: Pointer, w_stride: Index, count: Index,
    ) -> None:  # fmt: skip
        lanes = [vector * LANES for vector in range(vectors)]
        y_rows = y.rows(y_stride, rows)
        x_rows = x.rows(x_row, rows)
        sums = [[Accumulator(emit, y_row.load(lane)) for lane in lanes] for y_row in y_rows]
        with emit.loop(count) as k:
            w_row = w + k * w_stride
            weights = [w_row.load(lane) for lane in lanes]
            for x_pointer, row_sums in zip(x_rows, sums, strict=True):
                factor = x_pointer.load_broadcast(k * x_column)
                for total, weight in zip(row_sums, weights, strict=True):
                    total.add_product(factor, weight)
        for y_row, row_sums in zip(y_rows, sums, strict=True):
            for lane, total in zip(lanes, row_sums, strict=True):
                y_row.store(total.value(), lane)

    return kernel


def gemm_dot_tile(rows: int, columns: int) -> Callable[..., None]:
    """Return the kernel that computes a tile of y = x wᵀ from rows of x and rows of w.

    y[r·y_stride + c] = Σₖ x[r·x_stride + k] · w[c·w_stride + k]

    for r < `rows`, c < `columns` and k < vectors·LANES.
    """

    @simd_kernel
    def kernel(
        emit: Emitter, y: Pointer, y_stride: Index, x: Pointer, x_stride: Index,
        w: Pointer, w_stride: Index, vectors: Index,
    ) -> None:  # fmt: skip
        x_rows = x.rows(x_stride, rows)
        w_rows = w.rows(w_stride, columns)
        y_rows = y.rows(y_stride, rows)
        zero = emit.constant(0.0)
        sums = [[Accumulator(emit, zero) for _ in range(columns)] for _ in range(rows)]
        with emit.loop(vectors) as vector:
            k = vector * LANES
            factors = [row.load(k) for row in x_rows]
            for column, w_row in enumerate(w_rows):
                weight = w_row.load(k)
                for factor, row_sums in zip(factors, sums, strict=True):
                    row_sums[column].add_product(weight, factor)
        for y_row, row_sums in zip(y_rows, sums, strict=True):
            for column, total in enumerate(row_sums):
                y_row.store_number(emit.sum_of_lanes(total.value()), column)

    return kernel


def axpy(vectors: int) -> Callable[..., None]:
    """Return the kernel y[l] += scale · x[l], for l < `vectors`·LANES."""

    @simd_kernel
    def kernel(emit: Emitter, y: Pointer, x: Pointer, scale: Any) -> None:
        for vector in range(vectors):
            lane = vector * LANES
            y.store(emit.multiply_add(scale, x.load(lane), y.load(lane)), lane)

    return kernel
