"""Losses of rows of logits, with their gradients.

The formulas are in `backends.operations.losses`.

Logits and their gradients lie as rows (N, classes filled up to whole vectors). The gradient of what
fills up is 0.

Cost per image: an exponential for each class, eight at a time, and logarithms: one with the
softmax, one a class with binary cross-entropy, none with the quadratic cost.
"""

import math
from typing import Any

from backends.numba.kernels.compilation import inlined_kernel, kernel
from backends.numba.kernels.vectors import exponentials, sigmoids
from backends.numba.kernels.views import copy, fill, part

# The losses that have a kernel; their numbers are those in this order.
LOSSES = ("softmax_cross_entropy", "binary_cross_entropy", "quadratic")
SOFTMAX_CROSS_ENTROPY, BINARY_CROSS_ENTROPY, QUADRATIC = range(3)


@inlined_kernel
def loss_and_gradient(
    kind: int,
    logits: Any,
    classes: int,
    labels: Any,
    order: Any,
    first: int,
    share: Any,
    dlogits: Any,
) -> tuple[float, int]:
    """Return the sum of the losses of some rows, and how many are recognised.

    Args:
        kind: of the loss.
        logits: (N, classes filled up).
        classes: logits that count.
        labels: of the data set.
        order: rows of the data set.
        first: where in `order` these rows begin.
        share: of an image in the gradient: 1/batch for the gradient of the mean.
        dlogits: receives `share` times the gradient, like `logits`.
    """
    step = logits.shape[1]
    total = 0.0
    correct = 0
    if kind == SOFTMAX_CROSS_ENTROPY:
        total = _softmax_cross_entropy(logits, classes, labels, order, first, share, dlogits)
    else:
        copy(part(logits, 0, logits.size), part(dlogits, 0, dlogits.size))
        sigmoids(part(dlogits, 0, dlogits.size))
    for n in range(len(logits)):
        label = labels[order[first + n]]
        z = part(logits, n * step, classes)
        dz = part(dlogits, n * step, step)
        best = 0
        for c in range(classes):
            if z[c] > z[best]:
                best = c
        correct += best == label
        if kind == BINARY_CROSS_ENTROPY:
            total += _binary_cross_entropy(z, label, share, dz)
        elif kind == QUADRATIC:
            total += _quadratic(z, label, share, dz)
    return total, correct


@kernel
def softmax(z: Any, y: Any, classes: int) -> Any:
    """Set y to the softmax of z, and return the logarithm of the sum of exp(z).

    Both are whole vectors, of which `classes` numbers count; the others become 0.
    """
    largest = z[0]
    for c in range(classes):
        largest = max(largest, z[c])
    for c in range(classes):
        y[c] = z[c] - largest
    exponentials(y)
    total = z.dtype.type(0)
    for c in range(classes):
        total += y[c]
    share = z.dtype.type(1) / total
    for c in range(classes):
        y[c] *= share
    fill(part(y, classes, len(y) - classes))
    return largest + math.log(total)


@kernel
def _softmax_cross_entropy(
    logits: Any, classes: int, labels: Any, order: Any, first: int, share: Any, dlogits: Any
) -> Any:
    step = logits.shape[1]
    total = 0.0
    for n in range(len(logits)):
        z, dz = part(logits, n * step, step), part(dlogits, n * step, step)
        label = labels[order[first + n]]
        total += softmax(z, dz, classes) - z[label]
        for c in range(classes):
            dz[c] *= share
        dz[label] -= share
    return total


@kernel
def _binary_cross_entropy(z: Any, label: int, share: Any, dz: Any) -> Any:
    """Return the loss, and turn the outputs in `dz` into the gradient."""
    one = z.dtype.type(1)
    zero = one - one
    loss = 0.0
    for c in range(len(z)):
        target = one if c == label else zero
        # log(1 + exp(−|z|)) is minus the logarithm of the larger of the output and its complement.
        larger = max(dz[c], one - dz[c])
        loss += max(z[c], zero) - z[c] * target - math.log(larger)
        dz[c] = (dz[c] - target) * share
    fill(part(dz, len(z), len(dz) - len(z)))
    return loss


@kernel
def _quadratic(z: Any, label: int, share: Any, dz: Any) -> Any:
    """Return the loss, and turn the outputs in `dz` into the gradient."""
    one = z.dtype.type(1)
    loss = 0.0
    for c in range(len(z)):
        output = dz[c]
        error = output - (one if c == label else one - one)
        loss += 0.5 * error * error
        dz[c] = error * output * (one - output) * share
    fill(part(dz, len(z), len(dz) - len(z)))
    return loss
