"""Losses of rows of logits, with their gradients.

The formulas are in `backends.operations.losses`.
"""

import math
from typing import Any

from backends.numba_kernels.compilation import inlined_kernel, kernel
from backends.numba_kernels.views import part

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
    for n in range(len(logits)):
        label = labels[order[first + n]]
        z = part(logits, n * step, classes)
        dz = part(dlogits, n * step, classes)
        best = 0
        for c in range(classes):
            if z[c] > z[best]:
                best = c
        correct += best == label
        if kind == SOFTMAX_CROSS_ENTROPY:
            total += _softmax_cross_entropy(z, label, share, dz)
        elif kind == BINARY_CROSS_ENTROPY:
            total += _binary_cross_entropy(z, label, share, dz)
        else:
            total += _quadratic(z, label, share, dz)
    return total, correct


@kernel
def softmax(z: Any, y: Any) -> Any:
    """Set y to the softmax of z, and return the logarithm of the sum of exp(z)."""
    largest = z[0]
    for c in range(len(z)):
        largest = max(largest, z[c])
    total = z.dtype.type(0)
    for c in range(len(z)):
        y[c] = math.exp(z[c] - largest)
        total += y[c]
    share = z.dtype.type(1) / total
    for c in range(len(z)):
        y[c] *= share
    return largest + math.log(total)


@kernel
def _softmax_cross_entropy(z: Any, label: int, share: Any, dz: Any) -> Any:
    log_of_sum = softmax(z, dz)
    for c in range(len(z)):
        dz[c] *= share
    dz[label] -= share
    return log_of_sum - z[label]


@kernel
def _binary_cross_entropy(z: Any, label: int, share: Any, dz: Any) -> Any:
    one = z.dtype.type(1)
    loss = 0.0
    for c in range(len(z)):
        decay = math.exp(-abs(z[c]))
        output = (one if z[c] >= 0 else decay) / (one + decay)
        target = one if c == label else one - one
        loss += max(z[c], one - one) - z[c] * target + math.log1p(decay)
        dz[c] = (output - target) * share
    return loss


@kernel
def _quadratic(z: Any, label: int, share: Any, dz: Any) -> Any:
    one = z.dtype.type(1)
    loss = 0.0
    for c in range(len(z)):
        decay = math.exp(-abs(z[c]))
        output = (one if z[c] >= 0 else decay) / (one + decay)
        error = output - (one if c == label else one - one)
        loss += 0.5 * error * error
        dz[c] = error * output * (one - output) * share
    return loss
