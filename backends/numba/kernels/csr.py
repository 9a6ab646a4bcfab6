"""Conversion of images to sparse (CSR) format.

Each image is a row: the columns of its nonzero pixels (`indices`) and their values (`data`). The
columns are divided at `edges` into groups, because each thread computes the weight gradient of some
groups for all images. `indptr` therefore has an entry per image and group:

    columns      0 ... edges[1] ... edges[2] ... pixels
    image 0      [ group 0 ][ group 1 ][ group 2 ]       indptr[0], indptr[1], indptr[2]
    image 1      [ group 0 ][ group 1 ][ group 2 ]       indptr[3], ...

Each function processes a range of images, so that several threads share the work.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from backends.numba.kernels.compilation import entry, intrinsic, kernel

_BITS = 64  # pixels that one integer describes


@entry
def count_by_column(pixels: Any, first: int, last: int, counts: Any) -> None:
    """Add to `counts` (pixels,) the number of images with a nonzero pixel in each column."""
    for image in range(first, last):
        for column in range(pixels.shape[1]):
            counts[column] += pixels[image, column] != 0


@entry
def write_csr(
    pixels: Any, edges: Any, indptr: Any, indices: Any, data: Any, first: int, last: int, begin: int
) -> None:
    """Write a range of images in CSR format.

    Args:
        pixels: (N, pixels).
        edges: first column of each group, and the number of pixels, (groups + 1,).
        indptr: set to the beginning of each group of each image, (N · groups + 1,).
        indices: set to the columns of the nonzero pixels.
        data: set to the values of the nonzero pixels.
        first: first image.
        last: last image plus 1.
        begin: number of nonzero pixels in the images before `first`.
    """
    groups, at = len(edges) - 1, begin
    for image in range(first, last):
        for group in range(groups):
            indptr[image * groups + group] = at
            for column in range(edges[group], edges[group + 1], _BITS):
                end = min(column + _BITS, edges[group + 1])
                nonzero = _nonzero_bits(pixels, image, column, end)
                while nonzero:
                    index = column + _lowest_bit(nonzero)
                    indices[at] = index
                    data[at] = pixels[image, index]
                    at += 1
                    nonzero &= nonzero - np.uint64(1)  # clears the lowest bit
    indptr[last * groups] = at


@kernel
def _nonzero_bits(pixels: Any, image: int, begin: int, end: int) -> Any:
    """Return an integer whose bit i is set if pixel `begin` + i is not 0, for at most 64 pixels."""
    if begin + _BITS == end:
        return _compare_with_zero(pixels, image, begin)
    if end >= _BITS:  # read the pixels that end at `end`, and drop those before `begin`
        bits = _compare_with_zero(pixels, image, end - _BITS)
        return bits >> np.uint64(begin + _BITS - end)
    bits = np.uint64(0)
    for column in range(begin, end):
        bits |= np.uint64(pixels[image, column] != 0) << np.uint64(column - begin)
    return bits


@intrinsic
def _compare_with_zero(typing: Any, pixels: Any, image: Any, begin: Any) -> Any:
    """Return an integer whose bit i is set if pixel `begin` + i is not 0, for 64 pixels."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        row = builder.mul(arguments[1], builder.extract_value(array.shape, 1))
        address = builder.gep(array.data, [builder.add(row, arguments[2])])
        vector = ir.VectorType(array.data.type.pointee, _BITS)
        values = builder.load(builder.bitcast(address, vector.as_pointer()), align=1)
        is_integer = isinstance(vector.element, ir.IntType)
        compare = builder.icmp_unsigned if is_integer else builder.fcmp_unordered
        return builder.bitcast(compare("!=", values, ir.Constant(vector, None)), ir.IntType(_BITS))

    return types.uint64(pixels, types.intp, types.intp), generate


@intrinsic
def _lowest_bit(typing: Any, bits: Any) -> Any:
    """Return the position of the lowest set bit; at least one bit must be set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate
