"""Max-pooling of 2×2 patches, in several channels or in several patches of a row at once.

The four positions of a patch have these bits in a tie mask, one byte per channel:

    bit 0 │ bit 1
    ──────┼──────
    bit 2 │ bit 3
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from llvmlite import ir

from backends.numba.kernels.simd.emitter import Emitter, Index, Pointer, simd_kernel

# Channels that a vector of a convolution or pooling stage holds, whatever the width of registers:
# layers with 6 to 8 channels would leave half of a vector of 16 unused.
CHANNEL_LANES = 8
channel_kernel = partial(simd_kernel, lanes=CHANNEL_LANES)

# (down, right) of the positions, in the order of their bits.
POSITIONS = ((0, 0), (0, 1), (1, 0), (1, 1))


def store_max(emit: Emitter, values: list[Any], y: Pointer, mask: Pointer, all_ties: Index) -> None:
    """Emit the stores of the maximum of four vectors and of its tie mask."""
    builder = emit.builder
    maximum = values[0]
    for value in values[1:]:
        # LLVM compiles this comparison and selection to one maximum instruction.
        wins = builder.fcmp_ordered(">", value, maximum)
        maximum = builder.select(wins, value, maximum)
    # The maximum above loses a NaN. One comparison tests two values.
    has_nan = builder.or_(
        builder.fcmp_unordered("uno", values[0], values[1]),
        builder.fcmp_unordered("uno", values[2], values[3]),
    )
    maximum = builder.select(has_nan, emit.constant(math.nan), maximum)
    y.store(maximum)
    # The mask is computed in integers as wide as the numbers, and converted to bytes at the end.
    first = every = zero = emit.integer_constant(0)
    for number in reversed(range(len(values))):
        hit = builder.fcmp_ordered("==", values[number], maximum)
        bit = emit.integer_constant(1 << number)
        first = builder.select(hit, bit, first)
        every = builder.or_(every, builder.select(hit, bit, zero))
    only_first = builder.icmp_unsigned("==", all_ties.value, all_ties.value.type(0))
    bits = builder.select(only_first, first, every)
    mask.store_bytes(bits)


def gradients_of_patches(
    emit: Emitter, dy: Pointer, mask: Pointer, count: int = CHANNEL_LANES
) -> dict[tuple[int, int], Any]:
    """Emit the gradients of the positions of patches: dy if the bit in the mask is set, else 0.

    A vector with two lanes per patch holds both positions of a row: p0 of both, p1 of both, ...

    Args:
        emit: the emitter.
        dy: gradients of the maxima.
        mask: the tie mask.
        count: number of patches: channels of one place, or neighbors in a row.

    Returns:
        The vectors by row, and by position in the row of the first lane.
    """
    builder, together = emit.builder, emit.lanes // count
    bits = builder.zext(mask.load_spread(0, count), emit.integers)
    gradient = dy.load_spread(0, count)
    zero = emit.constant(0.0)
    gradients = {}
    for down in range(2):
        for right in range(0, 2, together):
            first = 2 * down + right
            selected = [1 << (first + lane % together) for lane in range(emit.lanes)]
            hit = builder.icmp_unsigned(
                "!=",
                builder.and_(bits, ir.Constant(emit.integers, selected)),
                emit.integer_constant(0),
            )
            gradients[down, right] = builder.select(hit, gradient, zero)
    return gradients


def _patch(corner: Pointer, right: Index, down: Index) -> list[Pointer]:
    return [corner, corner + right, corner + down, corner + down + right]


@channel_kernel
def max_pool_2x2_backward(
    emit: Emitter, dx: Pointer, right: Index, down: Index, dy: Pointer, mask: Pointer
) -> None:
    """Write the gradient of one patch: dy at the positions in its mask, 0 at the others."""
    gradients = gradients_of_patches(emit, dy, mask)
    for position, place in zip(POSITIONS, _patch(dx, right, down), strict=True):
        place.store(gradients[position])


def max_pool_rows(count: int) -> Callable[..., None]:
    """Return the kernel that pools the patches of one channel, `count` neighbors at a time.

    There are at least `count` patches in a row. The last vector of a row may begin within the
    vector before it, whose results it writes again.
    """

    @partial(simd_kernel, lanes=count)
    def kernel(
        emit: Emitter, y: Pointer, mask: Pointer, x: Pointer, x_row: Index, rows: Index,
        columns: Index, all_ties: Index,
    ) -> None:  # fmt: skip
        for at, corner in _vectors_of_patches(emit, x, x_row, (rows, columns), count):
            lines = [(line.load(), line.load(count)) for line in corner.rows(x_row, 2)]
            values = [
                emit.shuffle(*lines[down], range(right, 2 * count, 2)) for down, right in POSITIONS
            ]
            store_max(emit, values, y + at, mask + at, all_ties)

    return kernel


def max_pool_rows_backward(count: int) -> Callable[..., None]:
    """Return the kernel that writes the gradient of `max_pool_rows`."""

    @partial(simd_kernel, lanes=2 * count)
    def kernel(
        emit: Emitter, dx: Pointer, x_row: Index, dy: Pointer, mask: Pointer, rows: Index,
        columns: Index,
    ) -> None:  # fmt: skip
        for at, corner in _vectors_of_patches(emit, dx, x_row, (rows, columns), count):
            gradients = gradients_of_patches(emit, dy + at, mask + at, count)
            for (down, _), gradient in gradients.items():
                corner.store(gradient, x_row * down)

    return kernel


def _vectors_of_patches(
    emit: Emitter, x: Pointer, x_row: Index, sizes: tuple[Index, Index], count: int
) -> Iterator[tuple[Index, Pointer]]:
    """Yield the number of the first of `count` patches in a row, and the corner of this patch.

    The body of the `for` statement emits the instructions for all of them.
    """
    rows, columns = sizes
    with emit.loop(rows) as row, emit.loop((columns + (count - 1)) // count) as group:
        column = (group * count).at_most(columns - count)
        yield row * columns + column, x + row * 2 * x_row + column * 2
