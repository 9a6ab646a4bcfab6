"""Losses of one image, and their gradients.

`backends.operations.losses` has the formulas. The logits z and their gradients dz have `width`
numbers in whole vectors. Those after the last class may be any logits, and their gradient is 0.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

from llvmlite import ir

from backends.numba.kernels.simd.elementwise import exp, sigmoid
from backends.numba.kernels.simd.emitter import Accumulator, Emitter, Index, Pointer, simd_kernel
from backends.numba.kernels.simd.sums import of_all_lanes

_kernel_with_result = partial(simd_kernel, returns_number=True)


def _softmax(emit: Emitter, y: Pointer, z: Pointer, width: Index, classes: Index) -> Any:
    """Set y to the softmax of z, and return log Σ exp(z). y and z may be the same."""
    builder, zero = emit.builder, emit.constant(0.0)
    largest = Accumulator(emit, emit.constant(-math.inf))
    for _, at, is_class in _vectors(emit, width, classes):
        values = builder.select(is_class, z.load(at), largest.value())
        largest.set(_larger(emit, values, largest.value()))
    maximum = of_all_lanes(emit, largest.value(), partial(_larger, emit))
    total = Accumulator(emit, zero)
    for _, at, is_class in _vectors(emit, width, classes):
        power = exp(emit, builder.fsub(z.load(at), emit.broadcast(maximum)))
        power = builder.select(is_class, power, zero)
        total.add(power)
        y.store(power, at)
    number = of_all_lanes(emit, total.value(), builder.fadd)
    factor = builder.fdiv(emit.constant(1.0), emit.broadcast(number))
    for _, at, _ in _vectors(emit, width, classes):
        y.store(builder.fmul(y.load(at), factor), at)
    return builder.fadd(maximum, emit.log(number))


softmax = _kernel_with_result(_softmax)


@_kernel_with_result
def softmax_cross_entropy(
    emit: Emitter, dz: Pointer, z: Pointer, width: Index, classes: Index, label: Index, scale: Any
) -> Any:
    """Set dz to scale times the gradient of −log softmax(z)[label], and return this loss."""
    builder = emit.builder
    log_sum = _softmax(emit, dz, z, width, classes)
    for lanes, at, _ in _vectors(emit, width, classes):
        error = builder.fsub(dz.load(at), _one_hot(emit, lanes, label))
        dz.store(builder.fmul(error, scale), at)
    return builder.fsub(log_sum, builder.load((z + label).address))


@_kernel_with_result
def binary_cross_entropy(
    emit: Emitter, dz: Pointer, z: Pointer, width: Index, classes: Index, label: Index, scale: Any
) -> Any:
    """Set dz to scale times the gradient of the loss of the sigmoid outputs; return the loss.

    The loss of a class is max(z, 0) − z·target + log(1 + exp(−|z|)). The last term is minus the
    logarithm of the larger one of the output and 1 − output, which is at least ½. So a product of
    as many of them as a vector has cannot underflow, and one logarithm per vector is enough.
    """
    builder, zero, one = emit.builder, emit.constant(0.0), emit.constant(1.0)
    total, logarithms = Accumulator(emit, zero), Accumulator(emit, zero)
    for lanes, at, is_class in _vectors(emit, width, classes):
        logits, targets = z.load(at), _one_hot(emit, lanes, label)
        outputs = sigmoid(emit, logits)
        gradient = builder.fmul(builder.fsub(outputs, targets), scale)
        dz.store(builder.select(is_class, gradient, zero), at)
        losses = builder.fsub(_larger(emit, logits, zero), builder.fmul(logits, targets))
        total.add(builder.select(is_class, losses, zero))
        larger = _larger(emit, outputs, builder.fsub(one, outputs))
        product = of_all_lanes(emit, builder.select(is_class, larger, one), builder.fmul)
        logarithms.add(emit.broadcast(emit.log(product)))
    loss = of_all_lanes(emit, total.value(), builder.fadd)
    return builder.fsub(loss, emit.first_lane(logarithms.value()))


@_kernel_with_result
def quadratic(
    emit: Emitter, dz: Pointer, z: Pointer, width: Index, classes: Index, label: Index, scale: Any
) -> Any:
    """Set dz to scale times the gradient of the loss of the sigmoid outputs; return the loss."""
    builder, zero, one = emit.builder, emit.constant(0.0), emit.constant(1.0)
    total = Accumulator(emit, zero)
    for lanes, at, is_class in _vectors(emit, width, classes):
        outputs = sigmoid(emit, z.load(at))
        error = builder.fsub(outputs, _one_hot(emit, lanes, label))
        slope = builder.fmul(outputs, builder.fsub(one, outputs))
        gradient = builder.fmul(builder.fmul(error, slope), scale)
        dz.store(builder.select(is_class, gradient, zero), at)
        error = builder.select(is_class, error, zero)
        total.add_product(error, error)
    squares = of_all_lanes(emit, total.value(), builder.fadd)
    return builder.fmul(squares, ir.Constant(emit.element, 0.5))


@_kernel_with_result
def classes_before(emit: Emitter, z: Pointer, width: Index, classes: Index, label: Index) -> Any:
    """Return how many classes come before the label if they are sorted by their logits.

    Of equal logits, the first comes first. NaN comes before all numbers; if the logit of the label
    is NaN, all classes count.
    """
    builder = emit.builder
    own, labels = (z + label).load_broadcast(), emit.repeat(label)
    total = Accumulator(emit, emit.constant(0.0))
    for lanes, at, is_class in _vectors(emit, width, classes):
        logits = z.load(at)
        is_larger = builder.fcmp_unordered(">", logits, own)
        is_equal = builder.fcmp_ordered("==", logits, own)
        is_tie = builder.and_(is_equal, builder.icmp_unsigned("<", lanes, labels))
        is_before = builder.and_(is_class, builder.or_(is_larger, is_tie))
        total.add(builder.select(is_before, emit.constant(1.0), emit.constant(0.0)))
    return of_all_lanes(emit, total.value(), builder.fadd)


def _vectors(emit: Emitter, width: Index, classes: Index) -> Iterator[tuple[Any, Index, Any]]:
    """Yield the classes of a vector, the position of the first, and whether each class exists.

    The body of the `for` statement emits the instructions for each vector.
    """
    with emit.loop(width // emit.lanes) as vector:
        at = vector * emit.lanes
        lanes = emit.positions(at)
        yield lanes, at, emit.builder.icmp_unsigned("<", lanes, emit.repeat(classes))


def _one_hot(emit: Emitter, lanes: Any, label: Index) -> Any:
    """Return 1 for the class `label` and 0 for the others."""
    is_label = emit.builder.icmp_unsigned("==", lanes, emit.repeat(label))
    return emit.builder.select(is_label, emit.constant(1.0), emit.constant(0.0))


def _larger(emit: Emitter, a: Any, b: Any) -> Any:
    """Return the larger number in each lane; b if one of them is NaN."""
    return emit.builder.select(emit.builder.fcmp_ordered(">", a, b), a, b)
