"""What the arithmetic of a task must cost at least: floating-point operations and bytes.

Counted are the multiplications and additions of linear layers and convolutions on dense data, and
the bytes that must come: of images to train on one a pixel, as they lie in their files, of images
to predict four, because they are given in float32; of an operation all inputs and results. All
else (weights, activations, sums and maxima) fits the caches, or overlaps.

The floor that follows holds for dense arithmetic on data that come from main memory. What leaves
out work on zeros can undercut it, and so can small batches and operations, whose arrays stay in a
cache.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.contenders.base import HostArray, OperationTask
from mnist_accel.nn import Conv2d, Linear, Network

PIXELS = 784


@dataclass(frozen=True)
class Cost:
    """Work of one call.

    Attributes:
        flops: multiplications and additions.
        bytes: moved from and to main memory.
    """

    flops: float
    bytes: float

    def __mul__(self, times: float) -> "Cost":
        return Cost(self.flops * times, self.bytes * times)


def forward_cost(model: Network) -> Cost:
    """Return the cost of the logits of one image: 2·inputs·outputs of every layer with weights.

    The image is in float32.
    """
    return Cost(sum(_layer_flops(model)), 4 * PIXELS)


def training_cost(model: Network) -> Cost:
    """Return the cost of one image's part of an update; the image is in uint8.

    Backward, a layer costs as much again for the gradient of its weights, and once more for that
    of its input, which the first layer does not need.
    """
    first, *others = _layer_flops(model)
    return Cost(2 * first + 3 * sum(others), PIXELS)


def _layer_flops(model: Network) -> list[float]:
    """Return the floating-point operations of each layer with weights, for one image."""
    flops: list[float] = []
    shape = model.input_shape
    for layer in model.layers:
        output_shape = layer.output_shape(shape)
        if isinstance(layer, Linear):
            flops.append(2.0 * shape[0] * layer.units)
        elif isinstance(layer, Conv2d):
            flops.append(2.0 * math.prod(output_shape) * shape[0] * layer.kernel_size**2)
        shape = output_shape
    return flops


def operation_cost(task: OperationTask, results: Sequence[HostArray]) -> Cost:
    """Return the cost of an operation: its sums of products, its inputs and its results in float32.

    Args:
        task: the operation.
        results: what it computes.
    """
    numbers = sum(array.size for array in (*task.inputs.values(), *results))
    return Cost(_operation_flops(task), 4.0 * numbers)


def _operation_flops(task: OperationTask) -> float:
    """Return twice the products: of every input image with the weights, backward two times."""
    weight = task.inputs.get("weight")
    if weight is None or task.name.endswith("_update"):
        return 0.0
    positions = 1
    if weight.ndim == 4:
        side = task.inputs["x"].shape[2] + 2 * task.settings["padding"] - weight.shape[2] + 1
        positions = side**2
    times = 1 if task.direction == "forward" else 2
    return 2.0 * times * len(task.inputs["x"]) * positions * weight.size
