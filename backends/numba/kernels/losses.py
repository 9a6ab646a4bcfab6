"""Losses of rows of logits, and their gradients.

`backends.operations.losses` has the formulas.

Layout: logits and their gradients (N, classes padded to whole vectors). The gradient of unused
lanes is 0.

Cost per image: one exponential per class, a vector at a time. Softmax also takes one logarithm,
binary cross-entropy one per class.
"""

import math
from typing import Any

from backends.numba.kernels.compilation import inlined_kernel, kernel
from backends.numba.kernels.simd.elementwise import exp_in_place, sigmoid_in_place
from backends.numba.kernels.views import copy, fill_zero, pointer, view

# The losses that have a kernel. Each constant is the position in this tuple.
LOSSES = ("softmax_cross_entropy", "binary_cross_entropy", "quadratic")
SOFTMAX_CROSS_ENTROPY, BINARY_CROSS_ENTROPY, QUADRATIC = range(3)


@inlined_kernel
def loss_and_gradient(
    plan: Any, logits: Any, labels: Any, tile: Any, scale: Any, dlogits: Any
) -> tuple[float, int]:
    """Return the sum of the losses of a tile, and the number of correct images.

    Args:
        plan: the program.
        logits: (N, classes padded).
        labels: class indices of the data set.
        tile: the images.
        scale: factor of the gradient: 1/batch for the gradient of the mean.
        dlogits: set to `scale` times the gradient, (N, classes padded).
    """
    width, classes = logits.shape[1], plan.classes
    total = 0.0
    correct = 0
    if plan.loss == SOFTMAX_CROSS_ENTROPY:
        total = _softmax_cross_entropy(logits, classes, labels, tile, scale, dlogits)
    else:
        copy(view(logits, 0, logits.size), view(dlogits, 0, dlogits.size))
        sigmoid_in_place(pointer(dlogits, 0), dlogits.size)
    for n in range(len(logits)):
        label = labels[tile.rows[tile.first + n]]
        z = view(logits, n * width, classes)
        dz = view(dlogits, n * width, width)
        best = 0
        for c in range(classes):
            if z[c] > z[best]:
                best = c
        correct += best == label
        if plan.loss == BINARY_CROSS_ENTROPY:
            total += _binary_cross_entropy(z, label, scale, dz)
        elif plan.loss == QUADRATIC:
            total += _quadratic(z, label, scale, dz)
    return total, correct


@kernel
def softmax(z: Any, y: Any, classes: int) -> Any:
    """Set y to the softmax of the first `classes` numbers of z, and return log Σ exp(z).

    z and y are whole vectors; the unused lanes of y become 0.
    """
    largest = z[0]
    for c in range(classes):
        largest = max(largest, z[c])
    for c in range(classes):
        y[c] = z[c] - largest
    exp_in_place(pointer(y, 0), len(y))
    total = z.dtype.type(0)
    for c in range(classes):
        total += y[c]
    factor = z.dtype.type(1) / total
    for c in range(classes):
        y[c] *= factor
    fill_zero(view(y, classes, len(y) - classes))
    return largest + math.log(total)


@kernel
def _softmax_cross_entropy(
    logits: Any, classes: int, labels: Any, tile: Any, scale: Any, dlogits: Any
) -> Any:
    """Return the sum of the losses of a tile, and set the gradient."""
    width = logits.shape[1]
    total = 0.0
    for n in range(len(logits)):
        z, dz = view(logits, n * width, width), view(dlogits, n * width, width)
        label = labels[tile.rows[tile.first + n]]
        total += softmax(z, dz, classes) - z[label]
        for c in range(classes):
            dz[c] *= scale
        dz[label] -= scale
    return total


@kernel
def _binary_cross_entropy(z: Any, label: int, scale: Any, dz: Any) -> Any:
    """Return the loss of one image; dz holds its sigmoid outputs, which the gradient replaces."""
    one = z.dtype.type(1)
    zero = one - one
    loss = 0.0
    for c in range(len(z)):
        target = one if c == label else zero
        # log(1 + exp(−|z|)) is minus the logarithm of the larger of the output and 1 − output.
        larger = max(dz[c], one - dz[c])
        loss += max(z[c], zero) - z[c] * target - math.log(larger)
        dz[c] = (dz[c] - target) * scale
    fill_zero(view(dz, len(z), len(dz) - len(z)))
    return loss


@kernel
def _quadratic(z: Any, label: int, scale: Any, dz: Any) -> Any:
    """Return the loss of one image; dz holds its sigmoid outputs, which the gradient replaces."""
    one = z.dtype.type(1)
    loss = 0.0
    for c in range(len(z)):
        output = dz[c]
        error = output - (one if c == label else one - one)
        loss += 0.5 * error * error
        dz[c] = error * output * (one - output) * scale
    fill_zero(view(dz, len(z), len(dz) - len(z)))
    return loss
