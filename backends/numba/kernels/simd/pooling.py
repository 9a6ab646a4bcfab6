"""Max-pooling of 2×2 patches in `CHANNEL_LANES` channels at once.

The four positions of a patch have these bits in a tie mask, one byte per channel:

    bit 0 │ bit 1
    ──────┼──────
    bit 2 │ bit 3
"""

import math
from functools import partial
from typing import Any

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
        wins = builder.fcmp_unordered("ugt", value, maximum)
        maximum = builder.select(wins, value, maximum)
    # The maximum above loses a NaN that is not the last value. One comparison tests two values.
    has_nan = builder.or_(
        builder.fcmp_unordered("uno", values[0], values[1]),
        builder.fcmp_unordered("uno", values[2], values[3]),
    )
    maximum = builder.select(has_nan, emit.constant(math.nan), maximum)
    y.store(maximum)
    # The mask is computed in integers as wide as the numbers, and converted to bytes at the end.
    first_only = builder.icmp_unsigned("==", all_ties.value, all_ties.value.type(0))
    first_only = emit.broadcast(builder.sext(first_only, emit.integer))
    bits = taken = emit.integer_constant(0)
    for number, value in enumerate(values):
        hit = builder.fcmp_unordered("ueq", value, maximum)
        hit = builder.sext(hit, emit.integers)
        counts = builder.and_(hit, builder.not_(builder.and_(taken, first_only)))
        bits = builder.or_(bits, builder.and_(counts, emit.integer_constant(1 << number)))
        taken = builder.or_(taken, hit)
    mask.store_bytes(bits)


def gradients_of_patch(emit: Emitter, dy: Pointer, mask: Pointer) -> list[Any]:
    """Emit the gradient of each position of a patch: dy if its bit in the mask is set, else 0."""
    builder = emit.builder
    bits = builder.zext(mask.load_bytes(), emit.integers)
    gradient = builder.bitcast(dy.load(), emit.integers)
    gradients = []
    for number in range(len(POSITIONS)):
        bit = emit.integer_constant(1 << number)
        hit = builder.icmp_unsigned("==", builder.and_(bits, bit), bit)
        value = builder.and_(builder.sext(hit, emit.integers), gradient)
        gradients.append(builder.bitcast(value, emit.vector))
    return gradients


def _patch(corner: Pointer, right: Index, down: Index) -> list[Pointer]:
    return [corner, corner + right, corner + down, corner + down + right]


@channel_kernel
def max_pool_2x2(
    emit: Emitter, y: Pointer, mask: Pointer, x: Pointer, right: Index, down: Index, all_ties: Index
) -> None:
    """Pool one patch to its maximum y, and write its tie mask (uint8).

    The patch is x at offsets 0, right, down and down + right. If `all_ties` is 0, only the first
    position that equals the maximum has its bit set, else every such position.
    """
    values = [position.load() for position in _patch(x, right, down)]
    store_max(emit, values, y, mask, all_ties)


@channel_kernel
def max_pool_2x2_backward(
    emit: Emitter, dx: Pointer, right: Index, down: Index, dy: Pointer, mask: Pointer
) -> None:
    """Write the gradient of one patch: dy at the positions in its mask, 0 at the others."""
    gradients = gradients_of_patch(emit, dy, mask)
    for position, gradient in zip(_patch(dx, right, down), gradients, strict=True):
        position.store(gradient)
