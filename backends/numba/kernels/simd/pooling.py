"""Max-pooling of 2×2 patches in `CHANNEL_LANES` channels at once.

The four positions of a patch have these bits in a tie mask, one byte per channel:

    bit 0 │ bit 1
    ──────┼──────
    bit 2 │ bit 3
"""

import math
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
        hit = builder.fcmp_unordered("ueq", values[number], maximum)
        bit = emit.integer_constant(1 << number)
        first = builder.select(hit, bit, first)
        every = builder.or_(every, builder.select(hit, bit, zero))
    only_first = builder.icmp_unsigned("==", all_ties.value, all_ties.value.type(0))
    bits = builder.select(only_first, first, every)
    mask.store_bytes(bits)


def gradients_of_patch(emit: Emitter, dy: Pointer, mask: Pointer) -> dict[tuple[int, int], Any]:
    """Emit the gradients of the positions of a patch: dy if the bit in the mask is set, else 0.

    A vector with two lanes per channel holds both positions of a row: c0 of both, c1 of both, ...

    Returns:
        The vectors by row, and by position in the row of the first lane.
    """
    builder, together = emit.builder, emit.lanes // CHANNEL_LANES
    bits = builder.zext(mask.load_spread(0, CHANNEL_LANES), emit.integers)
    gradient = dy.load_spread(0, CHANNEL_LANES)
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
    gradients = gradients_of_patch(emit, dy, mask)
    for position, place in zip(POSITIONS, _patch(dx, right, down), strict=True):
        place.store(gradients[position])
