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
binary cross-entropy one per vector, and that of several labels one per class.
"""

import math
from typing import Any

import numpy as np

from backends.numba.kernels.compilation import allocating_entry, kernel, stage_kernel
from backends.numba.kernels.simd import losses
from backends.numba.kernels.simd.elementwise import sigmoid_in_place
from backends.numba.kernels.stages import outputs_of
from backends.numba.kernels.vector_width import ALIGNMENT
from backends.numba.kernels.views import copy, fill_zero, pointer, view


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
    images = labels, weights, tile
    _add_losses(losses.softmax_cross_entropy, last, images, factor, work, results, thread, step)


@stage_kernel
def binary_cross_entropy(
    last: Any, labels: Any, weights: Any, tile: Any, factor: float, work: Any,
    results: Any, thread: int, step: int,
) -> None:  # fmt: skip
    """Compute the sum of the binary cross-entropies of all classes."""
    images = labels, weights, tile
    _add_losses(losses.binary_cross_entropy, last, images, factor, work, results, thread, step)


@stage_kernel
def quadratic(
    last: Any, labels: Any, weights: Any, tile: Any, factor: float, work: Any,
    results: Any, thread: int, step: int,
) -> None:  # fmt: skip
    """Compute half of the squared distance between the sigmoid outputs and the one-hot label."""
    images = labels, weights, tile
    _add_losses(losses.quadratic, last, images, factor, work, results, thread, step)


@kernel
def _add_losses(
    of_image: Any, last: Any, images: Any, factor: float, work: Any, results: Any, thread: int,
    step: int,
) -> None:  # fmt: skip
    """Compute the loss of one image after another with a function of `simd.losses`.

    `images` are the labels, the weights and the tile. The other parameters are those of the stage
    kernels.
    """
    labels, weights, tile = images
    logits = outputs_of(last, work.outputs, work, tile.images)
    dlogits = outputs_of(last, work.gradients, work, tile.images)
    width, classes = last.y_size, last.out_channels
    cast = logits.dtype.type
    total, correct = 0.0, 0
    for n in range(tile.images):
        z, dz = pointer(logits, n * width), pointer(dlogits, n * width)
        row = tile.rows[tile.first + n]
        label, weight = labels[row], _weight_of(weights, row, cast(1))
        total += of_image(dz, z, width, classes, label, cast(factor) * weight) * weight
        correct += losses.classes_before(z, width, classes, label) == 0
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
        copy(z, view(y, 0, classes))
        log_sum = losses.softmax(pointer(y, 0), pointer(y, 0), len(y), classes)
        label = labels[n]
        for c in range(classes):
            dz[c] = y[c] * scale
        if 0 <= label < classes:
            total += log_sum - z[label]
            dz[label] = (y[label] - one) * scale
    return total / images


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
            larger = max(dz[c], one - dz[c])  # as in `simd.losses`
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
