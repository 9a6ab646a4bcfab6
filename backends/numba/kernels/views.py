"""Parts of arrays as arrays, for compiled code; and arrays that are filled and copied as a whole.

A slice of an array keeps the array alive, and checks its bounds. For the kernels of an epoch, whose
buffers outlive them, that is the larger part of all machine code. These views do neither: whoever
makes one knows that the numbers are there.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from backends.numba.kernels.compilation import instructions


def _view(dimensions: int) -> Callable[..., Any]:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source_type = signature.args[0]
        source = context.make_array(source_type)(context, builder, arguments[0])
        at, *shape = (
            context.cast(builder, value, kind, types.intp)
            for value, kind in zip(arguments[1:], signature.args[1:], strict=True)
        )
        itemsize = context.get_constant(
            types.intp, context.get_abi_sizeof(source.data.type.pointee)
        )
        strides = [itemsize] if dimensions == 1 else [builder.mul(shape[1], itemsize), itemsize]
        view = context.make_array(signature.return_type)(context, builder)
        context.populate_array(
            view,
            data=builder.gep(source.data, [at]),
            shape=shape,
            strides=strides,
            itemsize=itemsize,
            meminfo=ir.Constant(context.get_value_type(types.voidptr), None),
        )
        return view._getvalue()

    return build


@instructions
def part(typing: Any, array: Any, at: Any, count: Any) -> Any:
    """Return `count` numbers of a contiguous array from number `at` on, as (count,)."""
    return types.Array(array.dtype, 1, "C")(array, at, count), _view(1)


@instructions
def table(typing: Any, array: Any, at: Any, count: Any, width: Any) -> Any:
    """Return `count` rows of `width` numbers from number `at` on, as (count, width)."""
    return types.Array(array.dtype, 2, "C")(array, at, count, width), _view(2)


@instructions
def fill(typing: Any, array: Any) -> Any:
    """Set all numbers of a contiguous array (n,) to 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target = context.make_array(signature.args[0])(context, builder, arguments[0])
        size = builder.mul(target.nitems, target.itemsize)
        cgutils.memset(builder, target.data, size, 0)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(array), generate


@instructions
def copy(typing: Any, source: Any, target: Any) -> Any:
    """Write one contiguous array (n,) to another of the same type, as long as it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from_, to = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args, arguments, strict=True)
        )
        size = builder.mul(from_.nitems, from_.itemsize)
        cgutils.raw_memcpy(  # type: ignore[no-untyped-call]
            builder, to.data, from_.data, size, 1
        )
        return context.get_dummy_value()

    return types.void(source, target), generate
