"""The minimum work of a task: floating-point operations, and bytes from and to main memory.

The operations counted are the multiplications and additions of linear layers and convolutions on
dense data. The bytes counted are one per pixel of an image to train on (uint8), four per pixel of
an image to predict (float32), and all inputs and results of a single operation. Everything else
(weights, activations, sums and maxima) fits into the caches or overlaps with other work.

The resulting lower bound of the time holds for dense arithmetic on data in main memory. Kernels
that skip zeros can be faster, and so can small batches and operations whose arrays stay in a cache.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.contenders.base import HostArray, OperationTask
from mnist_accel.nn import Conv2d, Linear, Network


@dataclass(frozen=True)
class Cost:
    """The work of one call.

    Attributes:
        flops: number of multiplications and additions.
        bytes: bytes moved from and to main memory.
    """

    flops: float
    bytes: float

    def __mul__(self, times: float) -> "Cost":
        return Cost(self.flops * times, self.bytes * times)


def forward_cost(model: Network) -> Cost:
    """Return the cost of the logits of one float32 image.

    A linear layer takes 2·inputs·outputs operations. A convolution takes 2·K²·channels·filters
    operations for each output position.
    """
    return Cost(sum(_layer_flops(model)), 4 * math.prod(model.input_shape))


def training_cost(model: Network, number_bytes: int = 1) -> Cost:
    """Return the cost of an update per image; the image is in uint8, or has wider numbers.

    The backward pass of a layer costs as much as its forward pass for the gradient of the weights,
    and again as much for the gradient of the input, which the first layer does not need.
    """
    first, *others = _layer_flops(model)
    return Cost(2 * first + 3 * sum(others), number_bytes * math.prod(model.input_shape))


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
    """Return the cost of an operation: its products, and its inputs and results in float32."""
    numbers = sum(array.size for array in (*task.inputs.values(), *results))
    return Cost(_operation_flops(task), 4.0 * numbers)


def _operation_flops(task: OperationTask) -> float:
    """Return 2 per product; the backward pass has twice as many products as the forward pass."""
    weight = task.inputs.get("weight")
    if weight is None or task.name.endswith("_update"):
        return 0.0
    positions = 1
    if weight.ndim == 4:
        side = task.inputs["x"].shape[2] + 2 * task.settings["padding"] - weight.shape[2] + 1
        positions = side**2
    times = 1 if task.direction == "forward" else 2
    return 2.0 * times * len(task.inputs["x"]) * positions * weight.size
