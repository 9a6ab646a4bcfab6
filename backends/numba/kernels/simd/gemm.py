"""Matrix products in register tiles.

The sums of a tile of y stay in registers while the loop runs along the inner dimension k. The
largest tiles have 20 sums, or 10 if there are only 16 registers, because operands also need some:

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

The gathered rows of a table, such as pixels, have any number type. Blocks of them are converted in
a buffer first, because several tiles read each of them.

A matrix in *vector blocks* has, for each vector of columns, this vector of all rows. A range of
columns is then a range of the memory:

    rows         0a 0b 0c 0d 0e 0f 0g 0h       vector blocks     0a 0b 0c 0d  1a 1b 1c 1d
                 1a 1b 1c 1d 1e 1f 1g 1h       (4 lanes)         0e 0f 0g 0h  1e 1f 1g 1h
"""

from collections.abc import Callable
from typing import Any

from backends.numba.kernels.simd.emitter import (
    Accumulator,
    Emitter,
    Index,
    Pointer,
    index_value,
    simd_kernel,
)
from backends.numba.kernels.simd.sums import add_sums, store_sums
from backends.numba.kernels.vector_width import REGISTERS

# Five rows or columns, because typical layers have 10, 30, 50 or 120 outputs; times this number of
# vectors or rows.
_TIMES_FIVE = (4, 1) if REGISTERS == 32 else (2, 1)
# Rows of dot products. The last two rows of ten are a tile: tiles of one wait for their sums.
_ROWS = (4, 2, 1) if REGISTERS == 32 else (2, 1)


# The buffer of a block stays in the first-level cache. For dot products it has 8 rows of 4 KB, that
# is 1024 numbers of float32; for outer products it takes at most 20 KB.
_DOT_ROWS, _DOT_ROW_BYTES = 8, 4096
_OUTER_ROWS = 64


# An array is a pointer and a stride here, because LLVM functions take no structs.
@simd_kernel
def gemm_outer(  # noqa: PLR0913
    emit: Emitter, y: Pointer, y_stride: Index, x: Pointer, x_row: Index, x_column: Index,
    w: Pointer, w_stride: Index, rows: Index, width: Index, count: Index,
) -> None:  # fmt: skip
    """Add a product of matrices to y.

    y[r·y_stride + l] += Σₖ x[r·x_row + k·x_column] · w[k·w_stride + l]

    for r < rows, k < count and l < width, in whole vectors. To multiply by xᵀ, swap the strides
    of x.
    """
    x_part = x, x_row, x_column
    for vector, vectors in emit.tiles(width // emit.lanes, _TIMES_FIVE):
        lane = vector * emit.lanes
        y_part = y + lane, y_stride, Index(emit, index_value(emit.lanes))
        _add_outer(emit, y_part, x_part, (w + lane, w_stride), (rows, vectors, count))


@simd_kernel
def gemm_outer_gather(  # noqa: PLR0913
    emit: Emitter, y: Pointer, x: Pointer, x_stride: Index, table: Pointer, stride: Index,
    indices: Pointer, rows: Index, width: Index, count: Index, scale: Any, shrink: Any,
) -> None:  # fmt: skip
    """Add the product of xᵀ and some rows of a table to y in vector blocks, and multiply y.

    y[r, l] = shrink · (y[r, l] + scale · Σₖ x[k·x_stride + r] · table[indices[k]·stride + l])

    for r < rows, k < count and l < width, in whole vectors; count is at least 1.
    """
    converted = emit.buffer(_OUTER_ROWS * _TIMES_FIVE[0] * emit.lanes)
    one = emit.constant(1.0)
    for vector, vectors in emit.tiles(width // emit.lanes, _TIMES_FIVE):
        length = vectors * emit.lanes
        y_row, y_vector = Index(emit, index_value(emit.lanes)), rows * emit.lanes
        y_part = y + vector * y_vector, y_row, y_vector
        with emit.blocks(count, _OUTER_ROWS) as (first, height):
            with emit.loop(height) as k:
                source = table + indices.load_index(first + k) * stride + vector * emit.lanes
                for lane in range(0, length, emit.lanes):
                    converted.store(source.load(lane), k * length + lane)
            is_last = emit.builder.icmp_unsigned("==", (first + height).value, count.value)
            factors = scale, emit.builder.select(is_last, shrink, one)
            x_part = x + first * x_stride, Index(emit, index_value(1)), x_stride
            w_part = converted, Index(emit, index_value(length))
            _add_outer(emit, y_part, x_part, w_part, (rows, vectors, height), factors)


def _add_outer(
    emit: Emitter, y_part: tuple[Pointer, Index, Index], x_part: tuple[Pointer, Index, Index],
    w_part: tuple[Pointer, Index], sizes: tuple[Index, int, Index],
    factors: tuple[Any, Any] | None = None,
) -> None:  # fmt: skip
    """Emit the tiles of `gemm_outer` for some vectors.

    With `factors`, scale and shrink, y = shrink · (y + scale · products).

    A part is a pointer and its strides: of the rows and vectors of y, of the rows and columns of x,
    of the rows of w.
    """
    (y, y_row, y_vector), (x, x_row, x_column), (w, w_stride) = y_part, x_part, w_part
    rows, vectors, count = sizes
    lanes = range(0, vectors * emit.lanes, emit.lanes)
    for row, height in emit.tiles(rows, (5, 1)):
        tile = [
            [y + row * y_row + y_row * r + y_vector * v for v in range(vectors)]
            for r in range(height)
        ]
        x_rows = (x + row * x_row).rows(x_row, height)
        zero = emit.constant(0.0)
        sums = [
            [Accumulator(emit, zero if factors else place.load()) for place in places]
            for places in tile
        ]
        with emit.loop(count) as k:
            weights = [(w + k * w_stride).load(lane) for lane in lanes]
            for x_pointer, row_sums in zip(x_rows, sums, strict=True):
                factor = x_pointer.load_broadcast(k * x_column)
                for total, weight in zip(row_sums, weights, strict=True):
                    total.add_product(factor, weight)
        for places, row_sums in zip(tile, sums, strict=True):
            for place, total in zip(places, row_sums, strict=True):
                value = total.value()
                if factors:
                    scale, shrink = factors
                    value = emit.builder.fmul(shrink, emit.multiply_add(scale, value, place.load()))
                place.store(value)


@simd_kernel
def gemm_dot(
    emit: Emitter, y: Pointer, y_stride: Index, x: Pointer, x_stride: Index,
    w: Pointer, w_stride: Index, rows: Index, columns: Index, count: Index,
) -> None:  # fmt: skip
    """Set y to x wᵀ, from rows of x and rows of w.

    y[r·y_stride + c] = Σₖ x[r·x_stride + k] · w[c·w_stride + k]

    for r < rows, c < columns and k < count, in whole vectors.
    """
    w_part = w, w_stride, Index(emit, index_value(emit.lanes))
    _dots(emit, (y, y_stride), (x, x_stride), w_part, (rows, columns, count), store_sums)


@simd_kernel
def gemm_dot_gather(  # noqa: PLR0913
    emit: Emitter, y: Pointer, y_stride: Index, table: Pointer, table_stride: Index,
    indices: Pointer, later: Pointer, w: Pointer, rows: Index, columns: Index, count: Index,
) -> None:  # fmt: skip
    """Add x wᵀ to y, where x consists of some rows of a table and w has vector blocks.

    y[r·y_stride + c] += Σₖ table[indices[r]·table_stride + k] · w[c, k]

    for r < rows, c < columns and k < count, in whole vectors. Meanwhile, the rows `later[r]` are
    prefetched: a part for each tile, because the loads of the products would wait for many
    prefetches at once.
    """
    columns_of_block = _DOT_ROW_BYTES // emit.itemsize
    converted = emit.buffer(_DOT_ROWS * columns_of_block)
    column_blocks, row_blocks = emit.blocks(count, columns_of_block), emit.blocks(rows, _DOT_ROWS)
    with column_blocks as (left, length), row_blocks as (top, height):
        with emit.loop(height) as r, emit.loop(length // emit.lanes) as vector:
            source = table + indices.load_index(top + r) * table_stride + left
            lane = vector * emit.lanes
            converted.store(source.load(lane), r * length + lane)

        def prefetch(row: Index, height: int, column: Index, width: int) -> None:
            for number in range(height):
                begin = table + later.load_index(top + row + number) * table_stride + left
                first, end = column * length // columns, (column + width) * length // columns
                emit.prefetch(begin + first, begin + end)

        y_part = y + top * y_stride, y_stride
        w_part = w + left * columns, Index(emit, index_value(emit.lanes)), columns * emit.lanes
        _dots(
            emit, y_part, (converted, length), w_part, (height, columns, length), add_sums,
            prefetch,
        )  # fmt: skip


def _dots(
    emit: Emitter, y_part: tuple[Pointer, Index], x_part: tuple[Pointer, Index],
    w_part: tuple[Pointer, Index, Index], sizes: tuple[Index, Index, Index],
    write: Callable[[Emitter, list[Pointer], list[list[Accumulator]]], None],
    prefetch: Callable[[Index, int, Index, int], None] = lambda *tile: None,
) -> None:  # fmt: skip
    """Emit the tiles of `gemm_dot`; the strides of w are those of its rows and vectors."""
    (y, y_stride), (x, x_stride), (w, w_row, w_vector) = y_part, x_part, w_part
    rows, columns, count = sizes
    # The rows of w, which are read for all rows of x, stay in the cache.
    for column, width in emit.tiles(columns, (5, 1)):
        for row, height in emit.tiles(rows, _ROWS):
            prefetch(row, height, column, width)
            y_rows = (y + row * y_stride + column).rows(y_stride, height)
            x_rows = (x + row * x_stride).rows(x_stride, height)
            w_rows = (w + column * w_row).rows(w_row, width)
            zero = emit.constant(0.0)
            sums = [[Accumulator(emit, zero) for _ in w_rows] for _ in x_rows]
            with emit.loop(count // emit.lanes) as vector:
                factors = [x_pointer.load(vector * emit.lanes) for x_pointer in x_rows]
                for number, w_pointer in enumerate(w_rows):
                    weight = w_pointer.load(vector * w_vector)
                    for factor, row_sums in zip(factors, sums, strict=True):
                        row_sums[number].add_product(weight, factor)
            write(emit, y_rows, sums)
