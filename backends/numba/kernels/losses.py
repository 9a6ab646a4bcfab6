"""Losses of rows of logits, and their gradients.

`backends.operations.losses` has the formulas.

Each loss has a stage kernel. Its parameters:

    last: the last stage.
    labels: class indices of the data set, (N,); numbers (N, outputs) for a squared error.
    weights: factors of the losses of the data set, (N,); None for 1.
    tile: the images, `workspace.Tile`.
    factor: factor of the gradient: 1/batch for the gradient of the mean.
    work: workspace of the thread. Reads the logits in `work.outputs`, and sets their gradient in
        `work.gradients`.
    results: `record.Results`. The sum of the losses of the tile, and the number of correct images,
        are added to its elements [thread, step].
    thread: number of the thread.
    step: number of the step in the chunk.

Layout: logits and their gradients (N, classes padded to whole vectors). The gradient of unused
lanes is 0.

Cost per image: one exponential per class, a vector at a time. Softmax also takes one logarithm,
binary cross-entropy one per class.
"""

import math
from typing import Any

import numpy as np

from backends.numba.kernels.compilation import allocating_entry, kernel, stage_kernel
from backends.numba.kernels.simd.elementwise import exp_in_place, sigmoid_in_place
from backends.numba.kernels.stages import outputs_of
from backends.numba.kernels.vector_width import ALIGNMENT
from backends.numba.kernels.views import copy, fill_zero, pointer, view


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
def _best(z: Any, classes: int) -> int:
    """Return the class of the largest logit; the first one if several are equal."""
    best = 0
    for c in range(classes):
        if z[c] > z[best]:
            best = c
    return best


@kernel
def _weight_of(weights: Any, row: int, one: Any) -> Any:
    """Return the weight of an example; `one` if there are no weights."""
    if weights is None:
        return one
    return weights[row]


@stage_kernel
def softmax_cross_entropy(
    last: Any, labels: Any, weights: Any, tile: Any, factor: float, work: Any,
    results: Any, thread: int, step: int,
) -> None:  # fmt: skip
    """Compute −log softmax(z)[label]."""
    logits = outputs_of(last, work.outputs, work, tile.images)
    dlogits = outputs_of(last, work.gradients, work, tile.images)
    width, classes = last.y_size, last.out_channels
    cast = logits.dtype.type
    total, correct = 0.0, 0
    for n in range(tile.images):
        z, dz = view(logits, n * width, width), view(dlogits, n * width, width)
        row = tile.rows[tile.first + n]
        label, weight = labels[row], _weight_of(weights, row, cast(1))
        scale = cast(factor) * weight
        total += (softmax(z, dz, classes) - z[label]) * weight
        for c in range(classes):
            dz[c] *= scale
        dz[label] -= scale
        correct += _best(z, classes) == label
    results.losses[thread, step] += total
    results.correct[thread, step] += correct


@allocating_entry
def mean_softmax_cross_entropy(logits: Any, labels: Any, dlogits: Any) -> Any:
    """Return the mean loss of a batch, as a single operation, and set dlogits to its gradient.

    Args:
        logits: (N, classes).
        labels: class indices (N,). The loss of an example with another number is 0.
        dlogits: (N, classes).
    """
    images, classes = logits.shape
    y = np.zeros(-(-classes // ALIGNMENT) * ALIGNMENT, logits.dtype)  # whole vectors
    one = logits.dtype.type(1)
    scale = one / logits.dtype.type(images)
    total = 0.0
    for n in range(images):
        z, dz = view(logits, n * classes, classes), view(dlogits, n * classes, classes)
        log_sum, label = softmax(z, y, classes), labels[n]
        for c in range(classes):
            dz[c] = y[c] * scale
        if 0 <= label < classes:
            total += log_sum - z[label]
            dz[label] = (y[label] - one) * scale
    return total / images


@stage_kernel
def binary_cross_entropy(
    last: Any, labels: Any, weights: Any, tile: Any, factor: float, work: Any,
    results: Any, thread: int, step: int,
) -> None:  # fmt: skip
    """Compute the sum of the binary cross-entropies of all classes."""
    _add_losses(
        _binary_cross_entropy, last, labels, weights, tile, factor, work, results, thread, step
    )


@stage_kernel
def quadratic(
    last: Any, labels: Any, weights: Any, tile: Any, factor: float, work: Any,
    results: Any, thread: int, step: int,
) -> None:  # fmt: skip
    """Compute half of the squared distance between the sigmoid outputs and the one-hot label."""
    _add_losses(_quadratic, last, labels, weights, tile, factor, work, results, thread, step)


@kernel
def _add_losses(
    of_image: Any, last: Any, labels: Any, weights: Any, tile: Any, factor: float, work: Any,
    results: Any, thread: int, step: int,
) -> None:  # fmt: skip
    """Compute the loss of one image after another.

    `of_image` takes the logits of an image, its label, the factor, and an array with the sigmoid
    outputs, which it replaces by the gradient. It returns the loss. The other parameters are those
    of the stage kernels.
    """
    logits = outputs_of(last, work.outputs, work, tile.images)
    dlogits = outputs_of(last, work.gradients, work, tile.images)
    copy(view(logits, 0, logits.size), view(dlogits, 0, dlogits.size))
    sigmoid_in_place(pointer(dlogits, 0), dlogits.size)
    width, classes = last.y_size, last.out_channels
    cast = logits.dtype.type
    total, correct = 0.0, 0
    for n in range(tile.images):
        z, dz = view(logits, n * width, classes), view(dlogits, n * width, width)
        row = tile.rows[tile.first + n]
        label, weight = labels[row], _weight_of(weights, row, cast(1))
        total += of_image(z, label, cast(factor) * weight, dz) * weight
        correct += _best(z, classes) == label
    results.losses[thread, step] += total
    results.correct[thread, step] += correct


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


@stage_kernel
def multilabel_cross_entropy(
    last: Any, targets: Any, weights: Any, tile: Any, factor: float, work: Any,
    results: Any, thread: int, step: int,
) -> None:  # fmt: skip
    """Compute the sum of the binary cross-entropies of all outputs, each with its own target."""
    logits = outputs_of(last, work.outputs, work, tile.images)
    dlogits = outputs_of(last, work.gradients, work, tile.images)
    copy(view(logits, 0, logits.size), view(dlogits, 0, dlogits.size))
    sigmoid_in_place(pointer(dlogits, 0), dlogits.size)
    width, outputs = last.y_size, last.out_channels
    cast = logits.dtype.type
    one = cast(1)
    total = 0.0
    for n in range(tile.images):
        z, dz = view(logits, n * width, width), view(dlogits, n * width, width)
        row = tile.rows[tile.first + n]
        weight = _weight_of(weights, row, one)
        scale = cast(factor) * weight
        loss = 0.0
        for c in range(outputs):
            target = targets[row, c]
            larger = max(dz[c], one - dz[c])  # as in `_binary_cross_entropy`
            loss += max(z[c], one - one) - z[c] * target - math.log(larger)
            dz[c] = scale * (dz[c] - target)
        fill_zero(view(dz, outputs, width - outputs))
        total += loss * weight
    results.losses[thread, step] += total


@stage_kernel
def squared_error(
    last: Any, targets: Any, weights: Any, tile: Any, factor: float, work: Any,
    results: Any, thread: int, step: int,
) -> None:  # fmt: skip
    """Compute half of the squared distance between the logits and the targets."""
    logits = outputs_of(last, work.outputs, work, tile.images)
    dlogits = outputs_of(last, work.gradients, work, tile.images)
    width, outputs = last.y_size, last.out_channels
    cast = logits.dtype.type
    total = 0.0
    for n in range(tile.images):
        z, dz = view(logits, n * width, width), view(dlogits, n * width, width)
        row = tile.rows[tile.first + n]
        weight = _weight_of(weights, row, cast(1))
        scale = cast(factor) * weight
        loss = 0.0
        for c in range(outputs):
            error = z[c] - targets[row, c]
            loss += 0.5 * error * error
            dz[c] = error * scale
        fill_zero(view(dz, outputs, width - outputs))
        total += loss * weight
    results.losses[thread, step] += total


# The losses that have a kernel.
KERNELS = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "quadratic": quadratic,
    "multilabel_cross_entropy": multilabel_cross_entropy,
    "squared_error": squared_error,
}
LOSSES = tuple(KERNELS)
