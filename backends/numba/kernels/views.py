"""Unchecked views of contiguous arrays for compiled code, and whole-array fill and copy.

A slice of an array counts references to the array and checks its bounds. In the kernels of an
epoch, this would be most of the machine code. The functions here do neither: the buffers outlive
the kernels, and the caller guarantees that offsets and sizes lie within the array. Each takes an
array or a pointer; offsets and sizes count elements.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from backends.numba.kernels.compilation import intrinsic


def _address(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Return the address of the first element of an array, or a pointer as it is."""
    if isinstance(kind, types.Array):
        return context.make_array(kind)(context, builder, value).data
    return value


def _build_view(dimensions: int) -> Callable[..., Any]:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], arguments[0])
        offset, *shape = (
            context.cast(builder, value, kind, types.intp)
            for value, kind in zip(arguments[1:], signature.args[1:], strict=True)
        )
        itemsize = context.get_constant(types.intp, context.get_abi_sizeof(address.type.pointee))
        strides = [itemsize] if dimensions == 1 else [builder.mul(shape[1], itemsize), itemsize]
        view = context.make_array(signature.return_type)(context, builder)
        context.populate_array(
            view,
            data=builder.gep(address, [offset]),
            shape=shape,
            strides=strides,
            itemsize=itemsize,
            meminfo=ir.Constant(context.get_value_type(types.voidptr), None),
        )
        return view._getvalue()

    return build


@intrinsic
def view(typing: Any, array: Any, offset: Any, count: Any) -> Any:
    """Return a view (count,) that begins at `offset`."""
    return types.Array(array.dtype, 1, "C")(array, offset, count), _build_view(1)


@intrinsic
def view_2d(typing: Any, array: Any, offset: Any, rows: Any, width: Any) -> Any:
    """Return a view (rows, width) that begins at `offset`."""
    return types.Array(array.dtype, 2, "C")(array, offset, rows, width), _build_view(2)


@intrinsic
def pointer(typing: Any, source: Any, offset: Any) -> Any:
    """Return the address of the element at `offset`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, source, arguments[0])
        return builder.gep(address, [context.cast(builder, arguments[1], offset, types.uintp)])

    address_type: Any = types.CPointer(source.dtype)  # type: ignore[no-untyped-call]
    return address_type(source, offset), generate


@intrinsic
def pointer_to(typing: Any, kind: Any, address: Any) -> Any:
    """Return an address as a pointer to numbers of a NumPy type."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[1], context.get_value_type(signature.return_type))

    address_type: Any = types.CPointer(kind.dtype)  # type: ignore[no-untyped-call]
    return address_type(kind, types.intp), generate


@intrinsic
def fill_zero(typing: Any, array: Any) -> Any:
    """Set all elements of an array (n,) to 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target = context.make_array(signature.args[0])(context, builder, arguments[0])
        size = builder.mul(target.nitems, target.itemsize)
        cgutils.memset(builder, target.data, size, 0)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(array), generate


@intrinsic
def copy(typing: Any, source: Any, target: Any) -> Any:
    """Copy an array (n,) to another of the same type and length."""

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
