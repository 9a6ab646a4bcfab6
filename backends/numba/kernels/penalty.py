"""The L2 penalty of the weights: its part of the gradient and of the loss.

Cost per step, only with a penalty: one pass that reads the weights and reads and writes their
gradient.
"""

from typing import Any

from backends.numba.kernels.compilation import stage_kernel
from backends.numba.kernels.views import view


@stage_kernel
def add_penalty(
    penalty: Any, images: int, parameters: Any, gradient: Any, begin: int, count: int,
    results: Any, thread: int, step: int,
) -> None:  # fmt: skip
    """Add the penalty of a range of the parameters, which are those before the update.

    Args:
        penalty: `stages.Penalty`.
        images: number of images in the batch.
        parameters: `updates.Parameters`.
        gradient: gradient of all parameters, (size,); changed in place.
        begin: first parameter of the range.
        count: number of parameters.
        results: `record.Results`; B times the penalty is added to the loss at [thread, step].
        thread: number of the thread.
        step: number of the step in the chunk.
    """
    cast = parameters.packed.dtype.type
    factor, half = cast(penalty.l2 / images), 0.5 * penalty.l2
    total = 0.0
    for layer in range(len(penalty.weights)):
        first = max(begin, penalty.weights[layer, 0])
        length = max(0, min(begin + count, penalty.weights[layer, 1]) - first)
        weights, grads = view(parameters.packed, first, length), view(gradient, first, length)
        squares = cast(0)
        for i in range(length):
            grads[i] += factor * weights[i]
            squares += weights[i] * weights[i]
        total += squares
    results.losses[thread, step] += half * total
