"""Activations over rows of numbers, in place, and their gradients from the outputs.

Rows (N, outputs) are whole vectors, so they are taken as one vector. The derivative is computed
from the output: 1 or 0, y(1 − y), 1 − y². So inputs are not kept.

Cost: one pass, and for a number no operation to speak of, but for sigmoid (an exponential and a
division, eight at a time) and tanh (a call for each).
"""

import math
from typing import Any

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.stages import IDENTITY, RELU, SIGMOID, TANH
from backends.numba.kernels.vectors import rectify, sigmoids
from backends.numba.kernels.views import fill, part


@kernel
def add(x: Any, y: Any) -> None:
    """Add x to y, as long as it."""
    for i in range(len(x)):
        y[i] += x[i]


@kernel
def multiply(x: Any, factor: Any) -> None:
    """Multiply all numbers by a factor."""
    for i in range(len(x)):
        x[i] *= factor


@kernel
def activate(kind: int, y: Any) -> None:
    """Apply an activation to `y` (N, outputs), whole vectors."""
    flat = part(y, 0, y.size)
    if kind == RELU:
        rectify(flat)
    elif kind == SIGMOID:
        sigmoids(flat)
    elif kind == TANH:
        for i in range(len(flat)):
            flat[i] = math.tanh(flat[i])


@kernel
def activate_backward(kind: int, y: Any, dy: Any) -> None:
    """Multiply `dy` (N, outputs) by the derivative at the inputs that gave `y`."""
    if kind == IDENTITY:
        return
    outputs = part(y, 0, y.size)
    gradients = part(dy, 0, dy.size)
    one = outputs.dtype.type(1)
    zero = outputs.dtype.type(0)
    if kind == RELU:
        for i in range(len(outputs)):
            gradients[i] = gradients[i] if outputs[i] > zero else zero
    elif kind == SIGMOID:
        for i in range(len(outputs)):
            gradients[i] *= outputs[i] * (one - outputs[i])
    elif kind == TANH:
        for i in range(len(outputs)):
            gradients[i] *= one - outputs[i] * outputs[i]


@kernel
def clear_filling(stage: Any, y: Any) -> None:
    """Set what fills up the cells and the rows of a stage's outputs (N, outputs) to 0."""
    lanes, channels, width = stage.out_lanes, stage.out_channels, stage.outputs
    end = stage.out_height * stage.out_width * lanes
    if lanes == channels and end == width:
        return
    for n in range(len(y)):
        row = part(y, n * width, width)
        for cell in range(0, end, lanes):
            fill(part(row, cell + channels, lanes - channels))
        fill(part(row, end, width - end))
