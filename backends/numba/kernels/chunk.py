"""The work at the beginning and the end of a chunk: image order, parameters and results.

The parameters are copied between the network's vector and the packed vector in blocks. A block is a
matrix. In the network's vector, the elements of a row are neighbors. In the packed vector, those of
a row or those of a column are neighbors, in most cases.
"""

from typing import Any

import numpy as np

from backends.numba.kernels.compilation import entry, kernel
from backends.numba.kernels.views import pointer

# Rows that a transposing copy processes together. Rows may be 4 KB apart, and a cache holds only a
# few lines with such addresses.
_TILE = 8


@entry
def copy_blocks(blocks: Any, source: Any, target: Any) -> None:
    """Copy the parameters, or a state array of the optimizer.

    Args:
        blocks: for each block the numbers of rows and columns, then its begin, the stride of its
            rows and that of its columns in `source`, and the same three for `target`, (blocks, 8).
        source: vector of the network, or packed vector.
        target: the other one, changed in place.
    """
    for index in range(len(blocks)):
        block = blocks[index]
        rows, columns = block[0], block[1]
        from_row, from_column, to_row, to_column = block[3], block[4], block[6], block[7]
        origin, place = pointer(source, block[2]), pointer(target, block[5])
        if from_column == 1 and to_column == 1:
            for row in range(rows):
                for column in range(columns):
                    place[row * to_row + column] = origin[row * from_row + column]
            continue
        for first in range(0, rows, _TILE):
            for column in range(columns):
                for row in range(first, min(first + _TILE, rows)):
                    value = origin[row * from_row + column * from_column]
                    place[row * to_row + column * to_column] = value


@kernel
def _all_finite(vector: Any) -> bool:
    """Return whether all elements are finite: the product of 0 and another number is NaN."""
    zero = vector.dtype.type(0)
    check = zero
    for i in range(len(vector)):
        check += vector[i] * zero
    return bool(check == zero)


@entry
def sum_results(results: Any, bounds: Any, losses: Any, correct: Any, weights: Any) -> bool:
    """Set the results of each step to those of all threads; return whether they are finite.

    Args:
        results: sums of losses and numbers of correct images of each thread, as a plain tuple with
            the fields of `record.Results`.
        bounds: begin and end of each step, (steps, 2).
        losses: changed in place: mean loss of each step, (steps,).
        correct: changed in place: number of correct images of each step, (steps,).
        weights: parameters after the last step, which must be finite, too.
    """
    sums, counts = results
    steps = len(losses)
    for thread in range(len(sums)):  # outside, so that the order of the additions is fixed
        for i in range(steps):
            losses[i] = sums[thread, i] + (losses[i] if thread else 0.0)
            correct[i] = counts[thread, i] + (correct[i] if thread else 0)
    for i in range(steps):
        losses[i] /= bounds[i, 1] - bounds[i, 0]
    finite: bool = _all_finite(losses) and _all_finite(weights)
    return finite


@entry
def shuffled_rows(
    keys: Any, bits: int, examples: int, begin: int, rows: Any, places: Any, outside: Any
) -> None:
    """Set `rows` to the rows at the positions from `begin` on of `backends.order.Order`.

    All rows go through the Feistel network together, then all those that are outside of the data
    set, and so on, so that the loops vectorize.

    Args:
        keys: the round keys, as a tuple.
        bits: number of bits in each half of the numbers in the Feistel network.
        examples: number of images in the data set.
        begin: first position.
        rows: changed in place, int64.
        places: buffer, int64, at least as long as `rows`.
        outside: buffer like `places`.
    """
    count = len(rows)
    for i in range(count):
        places[i], outside[i] = i, begin + i
    while count:
        _permute(keys, bits, outside, count)
        later = 0
        for i in range(count):
            row = outside[i]
            rows[places[i]] = row
            places[later] = places[i]
            outside[later] = row
            later += row >= examples
        count = later


@kernel
def _permute(keys: Any, bits: int, numbers: Any, count: int) -> None:
    """Replace the first `count` numbers by their permutation."""
    for index in range(len(keys)):  # outside, so that the inner loop vectorizes
        for i in range(count):
            numbers[i] = _round(numbers[i], keys[index], bits)


@kernel
def _round(number: int, key: int, bits: int) -> Any:
    """Return the result of one round of the Feistel network for a number with 2·`bits` bits."""
    shift, mask = np.uint64(bits), (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    left, right = np.uint64(number) >> shift, np.uint64(number) & mask
    return (right << shift) | (left ^ (_fmix32(right ^ np.uint64(key)) & mask))


@kernel
def _fmix32(number: Any) -> Any:
    """Return `backends.order.fmix32` of a number, as a 64-bit integer."""
    low = np.uint64(0xFFFFFFFF)
    number ^= number >> np.uint64(16)
    number = number * np.uint64(0x85EBCA6B) & low
    number ^= number >> np.uint64(13)
    number = number * np.uint64(0xC2B2AE35) & low
    return number ^ (number >> np.uint64(16))
