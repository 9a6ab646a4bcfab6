"""Activations and their gradients, in place, and other element-wise loops.

An array (N, outputs), whose rows are whole vectors, is processed as one long vector. Derivatives
are computed from the output: 1 or 0 for ReLU, y(1 − y) for sigmoid, 1 − y² for tanh.

Cost: one pass. Sigmoid computes a vector of exponentials and divisions at a time; tanh calls a
function for each number.
"""

import math
from typing import Any

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.simd.elementwise import relu_in_place, sigmoid_in_place
from backends.numba.kernels.views import fill_zero, pointer, view

# The activations that have a kernel. Each constant is the position in this tuple.
ACTIVATIONS = ("identity", "relu", "sigmoid", "tanh")
IDENTITY, RELU, SIGMOID, TANH = range(4)


@kernel
def add(x: Any, y: Any) -> None:
    """Add x to y, of the same length."""
    for i in range(len(x)):
        y[i] += x[i]


@kernel
def shrink(packed: Any, begin: int, end: int, factor: float) -> None:
    """Multiply a range of the parameters by `factor`."""
    if factor != 1:
        cast = packed.dtype.type(factor)
        weights = view(packed, begin, end - begin)
        for i in range(len(weights)):
            weights[i] *= cast


@kernel
def activate(kind: int, y: Any) -> None:
    """Apply an activation to y (N, outputs); rows are whole vectors."""
    if kind == RELU:
        relu_in_place(pointer(y, 0), y.size)
    elif kind == SIGMOID:
        sigmoid_in_place(pointer(y, 0), y.size)
    elif kind == TANH:
        flat = view(y, 0, y.size)
        for i in range(len(flat)):
            flat[i] = math.tanh(flat[i])


@kernel
def activate_backward(kind: int, y: Any, dy: Any) -> None:
    """Multiply dy (N, outputs) by the derivative of the activation, computed from its output y."""
    if kind == IDENTITY:
        return
    outputs = view(y, 0, y.size)
    gradients = view(dy, 0, dy.size)
    one = outputs.dtype.type(1)
    zero = outputs.dtype.type(0)
    if kind == RELU:
        for i in range(len(outputs)):
            gradients[i] = zero if outputs[i] <= zero else gradients[i]
    elif kind == SIGMOID:
        for i in range(len(outputs)):
            gradients[i] *= outputs[i] * (one - outputs[i])
    elif kind == TANH:
        for i in range(len(outputs)):
            gradients[i] *= one - outputs[i] * outputs[i]


@kernel
def clear_unused_lanes(stage: Any, y: Any) -> None:
    """Set the unused lanes of a stage's outputs y (N, y_size) to 0."""
    lanes, channels, width = stage.out_lanes, stage.out_channels, stage.y_size
    end = stage.out_height * stage.out_width * lanes
    if lanes == channels and end == width:
        return
    for n in range(len(y)):
        row = view(y, n * width, width)
        for cell in range(0, end, lanes):
            fill_zero(view(row, cell + channels, lanes - channels))
        fill_zero(view(row, end, width - end))
