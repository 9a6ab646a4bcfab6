"""Loads into the cache ahead of use."""

from llvmlite import ir
from numba.core import cgutils

from backends.numba.kernels.simd.emitter import CACHE_LINE, Emitter, Index, Pointer, simd_kernel


@simd_kernel
def prefetch(emit: Emitter, begin: Pointer, end: Pointer) -> None:
    """Start to load the cache lines from `begin` up to `end`."""
    builder, index = emit.builder, ir.IntType(64)
    byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
    function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module,
        ir.FunctionType(ir.VoidType(), (byte, flag, flag, flag)),
        "llvm.prefetch.p0i8",
    )
    first_byte = Index(emit, builder.ptrtoint(begin.address, index))
    length = Index(emit, builder.ptrtoint(end.address, index)) - first_byte
    with emit.loop((length + (CACHE_LINE - 1)) // CACHE_LINE) as line:
        address = builder.inttoptr((first_byte + line * CACHE_LINE).value, byte)
        builder.call(function, (address, *(ir.Constant(flag, value) for value in (0, 3, 1))))
