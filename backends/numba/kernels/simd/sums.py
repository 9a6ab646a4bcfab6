"""Sums of the numbers of vectors.

The sums of several vectors take fewer instructions together than one by one. Here with vectors of
four numbers, each letter stands for a number of a vector of this name:

    a a a a  ┐
             ├▶  a a b b  ┐
    b b b b  ┘            │      neighbors are added,
                          ├▶  a b c d      then neighbors again
    c c c c  ┐            │
             ├▶  c c d d  ┘
    d d d d  ┘

Longer vectors have several such groups of four, which are added at the end. All sums have this
order, so a sum does not depend on the other vectors.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from backends.numba.kernels.simd.emitter import Accumulator, Emitter, Pointer

_GROUP_BYTES = 16  # every processor can move numbers within this many bytes in one instruction


def store_sums(emit: Emitter, rows: list[Pointer], totals: list[list[Accumulator]]) -> None:
    """Set rows[r][c] to the sum of the numbers of totals[r][c]."""
    _write_sums(emit, rows, totals, adds=False)


def add_sums(emit: Emitter, rows: list[Pointer], totals: list[list[Accumulator]]) -> None:
    """Add the sum of the numbers of totals[r][c] to rows[r][c]."""
    _write_sums(emit, rows, totals, adds=True)


def _write_sums(
    emit: Emitter, rows: list[Pointer], totals: list[list[Accumulator]], adds: bool
) -> None:
    group = _GROUP_BYTES // emit.itemsize
    whole = len(totals[0]) // group * group  # columns that are written in vectors
    single = []
    for row, row_totals in zip(rows, totals, strict=True):
        vectors = [total.value() for total in row_totals]
        for column in range(0, whole, group):
            sums = _sums(emit, vectors[column : column + group])
            if adds:
                sums = emit.builder.fadd(row.load_few(column, group), sums)
            row.store(sums, column)
        single += [(row + column, vectors[column]) for column in range(whole, len(vectors))]
    for first in range(0, len(single), group):
        numbers = single[first : first + group]
        unused = [numbers[0][1]] * (group - len(numbers))
        sums = _sums(emit, [*(vector for _, vector in numbers), *unused])
        for lane, (place, _) in enumerate(numbers):
            number = emit.builder.extract_element(sums, ir.Constant(ir.IntType(32), lane))
            if adds:
                number = emit.builder.fadd(emit.builder.load(place.address), number)
            place.store_number(number)


def _sums(emit: Emitter, vectors: list[Any]) -> Any:
    """Return the sums of the numbers of each vector, as a vector of a group of numbers."""
    group = len(vectors)
    while len(vectors) > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [_sums_of_neighbors(emit, a, b, group) for a, b in pairs]
    total = vectors[0]
    while total.type.count > group:
        half = total.type.count // 2
        lower = emit.shuffle(total, total, range(half))
        total = emit.builder.fadd(lower, emit.shuffle(total, total, range(half, 2 * half)))
    return total


def of_all_lanes(emit: Emitter, vector: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Combine all numbers of a vector to one, such as their sum or their maximum."""
    while vector.type.count > 1:
        half = vector.type.count // 2
        lower = emit.shuffle(vector, vector, range(half))
        vector = combine(lower, emit.shuffle(vector, vector, range(half, 2 * half)))
    return emit.first_lane(vector)


def _sums_of_neighbors(emit: Emitter, a: Any, b: Any, group: int) -> Any:
    """Add neighbors; in each group of the result, the first half is from a and the rest from b."""
    even = [
        begin + number
        for first in range(0, emit.lanes, group)
        for begin in (first, emit.lanes + first)
        for number in range(0, group, 2)
    ]
    odd = [place + 1 for place in even]
    return emit.builder.fadd(emit.shuffle(a, b, even), emit.shuffle(a, b, odd))
