"""Convolutions whose vectors run along the outputs of a plane, in register tiles.

`kernels.convolution` copies the inputs so that those of a tap for all outputs of a plane are
neighbors. Then a convolution is a product of matrices, and so is the gradient of its filters. The
rows of one factor are at `offsets` in x, one for each tap, and may overlap:

           x       offset k ▒▒▒▒▒▒▒▒▒▒▒▒                       x       offset k ▒▒▒▒▒▒▒▒▒▒▒▒
                              ── l ──▶                                            ── l ──▶
    w ─ k ▶        y                                   dy ── l ──▶     dw
    ┌───────┐      ┌─────────────┐                     ┌─────────┐     ┌────────┐
  r │▒      │  ▶   │sums         │ 24 vectors        r │▒▒▒▒▒▒▒▒▒│  ▶  │sums    │ one vector per
    └───────┘      └─────────────┘                     └─────────┘     └────────┘ sum, 20 sums
    conv_planes                                        conv_planes_wgrad
"""

from typing import Any

from backends.numba.kernels.simd.emitter import Accumulator, Emitter, Index, Pointer, simd_kernel
from backends.numba.kernels.simd.sums import add_sums
from backends.numba.kernels.vector_width import REGISTERS

# Sizes of the tiles in registers, largest first. Outputs: filters × vectors. Gradient of the
# filters: filters × taps.
_VECTORS = (4, 3, 1) if REGISTERS == 32 else (2, 1)
_FILTERS = (6, 4, 2, 1)
_TAPS = (5, 3, 1)
_WGRAD_FILTERS = (4, 2, 1) if REGISTERS == 32 else (2, 1)


@simd_kernel
def copy_rows(
    emit: Emitter, y: Pointer, x: Pointer, x_row: Index, rows: Index, width: Index
) -> None:
    """Copy rows to neighboring memory: y[r·width + l] = x[r·x_row + l] for r < rows, l < width.

    Rows are copied in whole vectors, so up to one more is read and written after the last row.
    """
    with emit.loop(rows) as row, emit.loop((width + (emit.lanes - 1)) // emit.lanes) as vector:
        lane = vector * emit.lanes
        y.store(x.load(row * x_row + lane), row * width + lane)


# An array is a pointer and a stride here, because LLVM functions take no structs.
@simd_kernel
def conv_planes(
    emit: Emitter, y: Pointer, y_row: Index, bias: Pointer, w: Pointer, x: Pointer,
    offsets: Pointer, rows: Index, count: Index, width: Index,
) -> None:  # fmt: skip
    """Set the planes of outputs of one image.

    y[r·y_row + l] = bias[r] + Σₖ w[r·count + k] · x[offsets[k] + l]

    for r < rows, k < count and l < width, rounded up to whole vectors.
    """
    for vector, vectors in emit.tiles((width + (emit.lanes - 1)) // emit.lanes, _VECTORS):
        lanes = range(0, vectors * emit.lanes, emit.lanes)
        for row, height in emit.tiles(rows, _FILTERS):
            filters = (w + row * count).rows(count, height)
            sums = [
                [Accumulator(emit, bias.load_broadcast(row + r)) for _ in lanes]
                for r in range(height)
            ]
            with emit.loop(count) as k:
                inputs = x + offsets.load_index(k) + vector * emit.lanes
                values = [inputs.load(lane) for lane in lanes]
                for taps, totals in zip(filters, sums, strict=True):
                    tap = taps.load_broadcast(k)
                    for total, value in zip(totals, values, strict=True):
                        total.add_product(tap, value)
            corner = y + row * y_row + vector * emit.lanes
            for y_line, totals in zip(corner.rows(y_row, height), sums, strict=True):
                for lane, total in zip(lanes, totals, strict=True):
                    y_line.store(total.value(), lane)


@simd_kernel
def conv_planes_wgrad(  # noqa: PLR0913
    emit: Emitter, dw: Pointer, dy: Pointer, dy_row: Index, x: Pointer, x_image: Index,
    offsets: Pointer, rows: Index, count: Index, width: Index, images: Index,
) -> None:  # fmt: skip
    """Add the gradient of the filters of `conv_planes`, from several images.

    dw[r·count + k] += Σₙ Σₗ dy[(n·rows + r)·dy_row + l] · x[n·x_image + offsets[k] + l]

    for r < rows, k < count, l < width and n < images. In dy, zeros fill the last vector of a row.
    """
    whole = (width - 1) // emit.lanes  # the last vector may have any number of outputs
    rest = emit.repeat(width - whole * emit.lanes)
    is_inside = emit.builder.icmp_unsigned("<", emit.positions(0), rest)
    for tap, length in emit.tiles(count, _TAPS):
        places = [x + offsets.load_index(tap + number) for number in range(length)]
        for row, height in emit.tiles(rows, _WGRAD_FILTERS):
            sums = [[Accumulator(emit, emit.constant(0.0)) for _ in places] for _ in range(height)]
            with emit.loop(images) as n:
                dy_rows = (dy + (n * rows + row) * dy_row).rows(dy_row, height)
                x_rows = [place + n * x_image for place in places]
                with emit.loop(whole) as vector:
                    _add_products(emit, sums, dy_rows, x_rows, vector * emit.lanes)
                _add_products(emit, sums, dy_rows, x_rows, whole * emit.lanes, is_inside)
            add_sums(emit, (dw + row * count + tap).rows(count, height), sums)


def _add_products(
    emit: Emitter, sums: list[list[Accumulator]], dy_rows: list[Pointer], x_rows: list[Pointer],
    lane: Index, is_inside: Any = None,
) -> None:  # fmt: skip
    """Emit the products of a vector of each row; what is not inside counts as 0."""
    gradients = [dy_row.load(lane) for dy_row in dy_rows]
    for number, x_row in enumerate(x_rows):
        value = x_row.load(lane)
        if is_inside is not None:  # after the last output, x may be infinite, and 0·∞ is NaN
            value = emit.builder.select(is_inside, value, emit.constant(0.0))
        for gradient, totals in zip(gradients, sums, strict=True):
            totals[number].add_product(gradient, value)
