"""Conversion of images to sparse (CSR) format.

Each image is a row: the columns of its nonzero pixels (`indices`) and their values (`data`). The
columns are divided at `edges` into groups, because each thread updates the weights of some groups.
`indptr` therefore has an entry per image and group:

    columns      0 ... edges[1] ... edges[2] ... pixels
    image 0      [ group 0 ][ group 1 ][ group 2 ]       indptr[0], indptr[1], indptr[2]
    image 1      [ group 0 ][ group 1 ][ group 2 ]       indptr[3], ...

Each function processes a range of images, so that several threads share the work.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.core.registry import cpu_target

from backends.numba.kernels.compilation import allocating_entry, entry, intrinsic, kernel
from backends.numba.kernels.views import fill_zero, view

BITS = 64  # pixels that one integer describes
# Features of processors with an instruction that moves the selected numbers of a vector together,
# by the number of bytes of a number.
_COMPRESSING = {1: "+avx512vbmi2", 4: "+avx512f", 8: "+avx512f"}
_FEATURES = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
_REGISTER_BYTES = 64
_MAX_UINT8 = 255


@allocating_entry
def count_by_column(pixels: Any, first: int, last: int, counts: Any) -> None:
    """Add to `counts` (pixels,) the number of images with a nonzero pixel in each column."""
    columns = pixels.shape[1]
    some = np.empty(columns, np.uint8)  # narrow counts, so that a vector has many of them
    for begin in range(first, last, _MAX_UINT8):
        fill_zero(some)
        for image in range(begin, min(begin + _MAX_UINT8, last)):
            row = view(pixels, image * columns, columns)
            for column in range(columns):
                some[column] += row[column] != 0
        for column in range(columns):
            counts[column] += some[column]


@entry
def write_csr(
    pixels: Any, edges: Any, indptr: Any, indices: Any, data: Any, first: int, last: int,
    begin: int, limit: int,
) -> None:  # fmt: skip
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
        limit: number of nonzero pixels in the images before `last`.
    """
    groups, at = len(edges) - 1, begin
    for image in range(first, last):
        for group in range(groups):
            indptr[image * groups + group] = at
            for column in range(edges[group], edges[group + 1], BITS):
                end = min(column + BITS, edges[group + 1])
                nonzero = nonzero_bits(pixels, image, column, end)
                at = append(pixels, image, column, end, nonzero, indices, data, at, limit)
    indptr[last * groups] = at


@kernel
def _append_one_by_one(
    pixels: Any,
    image: int,
    column: int,
    end: int,
    nonzero: Any,
    indices: Any,
    data: Any,
    at: int,
    limit: int,
) -> int:
    """Append the pixels whose bits are set, and return the new end of `indices` and `data`.

    Args:
        pixels: (N, pixels).
        image: the image.
        column: the pixel of bit 0.
        end: end of the pixels that have a bit.
        nonzero: the bits.
        indices: the columns; changed in place.
        data: the values; changed in place.
        at: end of the used part of `indices` and `data`.
        limit: end of the part that may be changed.
    """
    while nonzero:
        index = column + lowest_bit(nonzero)
        indices[at] = index
        data[at] = pixels[image, index]
        at += 1
        nonzero &= nonzero - np.uint64(1)  # clears the lowest bit
    return at


def _append_compressed(
    pixels: Any,
    image: int,
    column: int,
    end: int,
    nonzero: Any,
    indices: Any,
    data: Any,
    at: int,
    limit: int,
) -> Any:
    """Do the same as `_append_one_by_one`, with an instruction that moves numbers together."""
    first = end - BITS
    if first < 0 or at + BITS > limit:
        return _append_one_by_one(pixels, image, column, end, nonzero, indices, data, at, limit)
    return _compress(pixels, image, first, nonzero << np.uint64(column - first), indices, data, at)


def append(*arguments: Any) -> Any:
    """Append the pixels whose bits are set; compiled code calls what `_select` returns."""


@extending.overload(append, strict=False)
def _select(
    pixels: Any,
    image: Any,
    column: Any,
    end: Any,
    nonzero: Any,
    indices: Any,
    data: Any,
    at: Any,
    limit: Any,
) -> Callable[..., Any]:
    if compresses(pixels.dtype.bitwidth // 8):
        return _append_compressed
    one_by_one: Callable[..., Any] = _append_one_by_one.py_func
    return one_by_one


def compresses(itemsize: int) -> bool:
    """Return whether the processor has a fast instruction for numbers of `itemsize` bytes."""
    return _COMPRESSING.get(itemsize) in _FEATURES


@intrinsic
def _compress(
    typing: Any, pixels: Any, image: Any, first: Any, bits: Any, indices: Any, data: Any, at: Any
) -> Any:
    """Write the pixels from `first` on whose bits are set, and their columns, from `at` on.

    This changes at most `BITS` elements of `indices` and `data`, and returns the end of the new
    ones.
    """
    itemsize = pixels.dtype.bitwidth // 8
    lanes = _REGISTER_BYTES // itemsize

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, image, first, bits, _, _, at = arguments
        source, columns, values = (
            context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 4, 5)
        )
        row = builder.mul(image, builder.extract_value(source.shape, 1))
        vector = ir.VectorType(source.data.type.pointee, lanes)
        numbers = ir.Constant(ir.VectorType(ir.IntType(8 * itemsize), lanes), list(range(lanes)))
        for part in range(0, BITS, lanes):
            begin = builder.add(first, ir.Constant(first.type, part))
            address = builder.gep(source.data, [builder.add(row, begin)])
            address = builder.bitcast(address, vector.as_pointer())
            mask = builder.trunc(
                builder.lshr(bits, ir.Constant(bits.type, part)), ir.IntType(lanes)
            )
            _store(builder, _compressed(builder, builder.load(address, align=1), mask), values, at)
            _store_columns(builder, _compressed(builder, numbers, mask), begin, columns, at)
            at = builder.add(at, builder.zext(builder.ctpop(mask), at.type))
        return at

    kinds = pixels, types.intp, types.intp, types.uint64, indices, data, types.intp
    return types.intp(*kinds), generate


def _compressed(builder: Any, vector: Any, mask: Any) -> Any:
    """Return the elements of a vector whose bits are set, followed by zeros."""
    kind, lanes = vector.type, vector.type.count
    names = {"i8": "i8", "i32": "i32", "i64": "i64", "float": "f32", "double": "f64"}
    mask_type = ir.VectorType(ir.IntType(1), lanes)
    function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module,
        ir.FunctionType(kind, [kind, kind, mask_type]),
        f"llvm.x86.avx512.mask.compress.v{lanes}{names[str(kind.element)]}",
    )
    zeros = ir.Constant(kind, None)
    return builder.call(function, [vector, zeros, builder.bitcast(mask, mask_type)])


def _store_columns(builder: Any, numbers: Any, begin: Any, columns: Any, at: Any) -> None:
    """Store numbers + `begin` from `at` on in an array of columns, of any integer type."""
    element, lanes = columns.data.type.pointee, numbers.type.count
    vector = ir.VectorType(element, lanes)
    resize = builder.zext if numbers.type.element.width < element.width else builder.trunc
    undefined, zero = ir.Constant(vector, ir.Undefined), ir.Constant(ir.IntType(32), 0)
    offset = builder.insert_element(undefined, builder.trunc(begin, element), zero)
    splat = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
    offsets = builder.shuffle_vector(offset, undefined, splat)
    _store(builder, builder.add(resize(numbers, vector), offsets), columns, at)


def _store(builder: Any, vector: Any, array: Any, at: Any) -> None:
    """Store a vector from `at` on in an array."""
    target = builder.bitcast(builder.gep(array.data, [at]), vector.type.as_pointer())
    builder.store(vector, target, align=1)


@kernel
def nonzero_bits(pixels: Any, image: int, begin: int, end: int) -> Any:
    """Return an integer whose bit i is set if pixel `begin` + i is not 0, for at most 64 pixels."""
    if begin + BITS == end:
        return _compare_with_zero(pixels, image, begin)
    if end >= BITS:  # read the pixels that end at `end`, and drop those before `begin`
        bits = _compare_with_zero(pixels, image, end - BITS)
        return bits >> np.uint64(begin + BITS - end)
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
        vector = ir.VectorType(array.data.type.pointee, BITS)
        values = builder.load(builder.bitcast(address, vector.as_pointer()), align=1)
        is_integer = isinstance(vector.element, ir.IntType)
        compare = builder.icmp_unsigned if is_integer else builder.fcmp_unordered
        return builder.bitcast(compare("!=", values, ir.Constant(vector, None)), ir.IntType(BITS))

    return types.uint64(pixels, types.intp, types.intp), generate


@intrinsic
def lowest_bit(typing: Any, bits: Any) -> Any:
    """Return the position of the lowest set bit; at least one bit must be set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate
