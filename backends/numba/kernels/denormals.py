"""Denormal numbers count as 0 in compiled training.

Numbers below 1.2·10⁻³⁸ in float32 (2.2·10⁻³⁰⁸ in float64) are denormal. They occur where they do
not matter, such as in the mean of gradients of an unused weight, which Adam multiplies by 0.9 in
each step. But Intel's processors need more than 100 cycles for an operation with one of them.

A thread has a control register with the bits that set denormal operands and results to 0.
"""

from typing import Any

from llvmlite import ir
from numba import types

from backends.numba.kernels.compilation import intrinsic
from backends.numba.kernels.vector_width import IS_ARM

# x86: "flush to zero" and "denormals are zero" of MXCSR. ARM: "flush to zero" of FPCR.
FLUSH = 1 << 24 if IS_ARM else 0x8040

_INT64, _INT32, _ADDRESS = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
_ADDRESS_ONLY = ir.FunctionType(ir.VoidType(), [_ADDRESS])


def emit_read(builder: Any, *, is_arm: bool) -> Any:
    """Emit the instruction that reads the control register, and return its value, int64."""
    if is_arm:
        return _call(builder, "llvm.aarch64.get.fpcr", ir.FunctionType(_INT64, []))
    slot = _slot(builder)
    _call(builder, "llvm.x86.sse.stmxcsr", _ADDRESS_ONLY, builder.bitcast(slot, _ADDRESS))
    return builder.zext(builder.load(slot), _INT64)


def emit_write(builder: Any, value: Any, *, is_arm: bool) -> None:
    """Emit the instruction that sets the control register to `value`, int64."""
    if is_arm:
        kind = ir.FunctionType(ir.VoidType(), [_INT64])
        _call(builder, "llvm.aarch64.set.fpcr", kind, value)
        return
    slot = _slot(builder)
    builder.store(builder.trunc(value, _INT32), slot)
    _call(builder, "llvm.x86.sse.ldmxcsr", _ADDRESS_ONLY, builder.bitcast(slot, _ADDRESS))


def _slot(builder: Any) -> Any:
    """Return the address of a new local variable, int32."""
    with builder.goto_entry_block():
        return builder.alloca(_INT32)


def _call(builder: Any, name: str, kind: Any, *values: Any) -> Any:
    """Emit a call of an intrinsic of LLVM."""
    declared = builder.module.globals.get(name)
    function = ir.Function(builder.module, kind, name) if declared is None else declared
    return builder.call(function, values)


@intrinsic
def flush_denormals(typing: Any) -> Any:
    """Count denormals as 0 in this thread; return the value for `restore_denormals`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        before = emit_read(builder, is_arm=IS_ARM)
        flush = ir.Constant(before.type, FLUSH)
        emit_write(builder, builder.or_(before, flush), is_arm=IS_ARM)
        return before

    return types.int64(), generate


@intrinsic
def restore_denormals(typing: Any, before: Any) -> Any:
    """Compute with denormals as before `flush_denormals`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit_write(builder, arguments[0], is_arm=IS_ARM)
        return context.get_dummy_value()

    return types.void(types.int64), generate
