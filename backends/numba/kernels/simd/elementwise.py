"""Element-wise functions of vectors."""

import math
from collections.abc import Callable
from typing import Any

from backends.numba.kernels.simd.emitter import Emitter, Index, Pointer, simd_kernel


def exp(emit: Emitter, x: Any) -> Any:
    """Emit the exponential of x ≤ 0, with an error of a few units in the last place; NaN stays NaN.

    exp(x) = 2ⁿ exp(r) with n = round(x / ln 2). Because |r| ≤ ln 2 / 2, a short Taylor series is
    enough for exp(r). If the result would not be a normal number, x is replaced by the smallest x
    with a normal result.
    """
    builder = emit.builder
    is_single = str(emit.element) == "float"
    mantissa, bias, terms = (23, 127, 8) if is_single else (52, 1023, 14)
    # ln 2 in two parts: the product of n and the first part is exact.
    high = 0.693359375 if is_single else 0.693147180369123816490
    low = math.log(2) - high if is_single else 1.90821492927058770002e-10
    lowest = emit.constant(-(bias - 1) * math.log(2))
    x = builder.select(builder.fcmp_ordered("<", x, lowest), lowest, x)
    n = emit.call("llvm.rint", builder.fmul(x, emit.constant(1 / math.log(2))))
    # The compiler may reorder sums and would then add the parts of ln 2 first. An explicit fused
    # multiply-add prevents that.
    rest = emit.call("llvm.fma", n, emit.constant(-high), x)
    rest = emit.call("llvm.fma", n, emit.constant(-low), rest)
    value = emit.constant(1 / math.factorial(terms - 1))
    for power in reversed(range(terms - 1)):
        value = emit.multiply_add(value, rest, emit.constant(1 / math.factorial(power)))
    # The conversion of NaN is not defined. (That of `llvm.fptosi.sat` is, but is not vectorized.)
    zero = emit.constant(0.0)
    defined = builder.select(builder.fcmp_ordered("<=", n, zero), n, zero)
    exponent = builder.shl(builder.fptosi(defined, emit.integers), emit.integer_constant(mantissa))
    one = emit.integer_constant(bias << mantissa)
    scale = builder.bitcast(builder.add(exponent, one), emit.vector)
    return builder.fmul(value, scale)


def _relu(emit: Emitter, x: Any) -> Any:
    """Emit max(x, 0); NaN stays NaN.

    LLVM compiles the plain loop to a branch around a store, which it does not vectorize.
    """
    zero = emit.constant(0.0)
    return emit.builder.select(emit.builder.fcmp_ordered("<", x, zero), zero, x)


def sigmoid(emit: Emitter, x: Any) -> Any:
    """Emit 1 / (1 + exp(−x)); NaN stays NaN."""
    builder = emit.builder
    one = emit.constant(1.0)
    is_negative = builder.fcmp_ordered("<", x, emit.constant(0.0))
    # exp(−|x|) ≤ 1 cannot overflow.
    negated = builder.fsub(emit.constant(0.0), x)
    decay = exp(emit, builder.select(is_negative, x, negated))
    return builder.fdiv(builder.select(is_negative, decay, one), builder.fadd(one, decay))


def _in_place(function: Callable[[Emitter, Any], Any]) -> Callable[..., None]:
    """Return the kernel that applies a function to `count` numbers, in whole vectors."""

    @simd_kernel
    def kernel(emit: Emitter, y: Pointer, count: Index) -> None:
        with emit.loop(count // emit.lanes) as vector:
            at = vector * emit.lanes
            y.store(function(emit, y.load(at)), at)

    return kernel


sigmoid_in_place = _in_place(sigmoid)
relu_in_place = _in_place(_relu)
