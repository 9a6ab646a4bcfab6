"""The gradient of a block of images from the logits back to all parameters.

The gradient of each stage's outputs lies as the outputs do, in an arena of the same layout. A stage
turns it into that of its inputs, except for the first, and adds to that of its parameters, a packed
vector like the parameters themselves.

Cost per image: at most twice that of `forward` in linear layers and convolutions, and once in the
first stage, which has nobody to pass a gradient to. The gradient of filters is summed over all
outputs of a convolution, though a pooling behind it lets only a quarter of them carry any: which
ones differs from channel to channel, and a vector holds eight channels.
"""

from typing import Any

from backends.numba.kernels.compilation import inlined_kernel, kernel
from backends.numba.kernels.dense import (
    linear_backward_bias,
    linear_backward_weight,
    linear_backward_x,
)
from backends.numba.kernels.elementwise import activate_backward
from backends.numba.kernels.feature_maps import avg_pool2d_backward, max_pool2d_backward
from backends.numba.kernels.fused_convolution import (
    add_bias_gradient,
    add_pooled_tap_products,
    add_tap_products,
    add_to_input,
    lay_out_for_input,
    spread,
    stays_in_registers,
)
from backends.numba.kernels.stages import (
    AVG_POOL2D,
    CONV2D,
    LINEAR,
    MAX_POOL2D,
    SPARSE_LINEAR,
    padded_size,
    rows_of,
)
from backends.numba.kernels.vectors import LANES
from backends.numba.kernels.views import copy, fill, part


@inlined_kernel
def backward(
    plan: Any, packed: Any, gradient: Any, count: int, work: Any, deltas: Any, first: int
) -> None:
    """Add what a block gives to the gradient of all parameters.

    Each stage passes the gradient on before it adds its own, so `gradient` may be the parameters
    themselves: a plain step is taken on the way.

    Args:
        plan: the stages.
        packed: the parameters.
        gradient: like them; not touched where the weights of a sparse first stage lie.
        count: images in the block.
        work: holds what `forward` left, and the gradients of the logits.
        deltas: receives the gradients of the outputs of a sparse first stage, a row an image.
        first: row of the block in `deltas`.
    """
    stages = plan.stages
    capacity = work.capacity
    for back in range(len(stages)):
        index = len(stages) - 1 - back
        stage = stages[index]
        y = rows_of(work.outputs, stage.y, capacity, count, stage.outputs)
        dy = rows_of(work.gradients, stage.y, capacity, count, stage.outputs)
        activate_backward(stage.activation, y, dy)
        if stage.bias >= 0 and stage.kind != CONV2D:
            linear_backward_bias(dy, part(gradient, stage.bias, stage.out_channels))
        if stage.kind == SPARSE_LINEAR:
            for n in range(count):
                delta = part(deltas, (first + n) * deltas.shape[1], stage.outputs)
                copy(part(dy, n * stage.outputs, stage.outputs), delta)
            continue
        x = rows_of(work.outputs, stage.x, capacity, count, stage.inputs)
        dx = rows_of(work.gradients, stage.x, capacity, count, stage.inputs)
        if stage.kind == LINEAR:
            if index > 0:
                linear_backward_x(dy, packed, stage.weight, stage.out_channels, dx)
            linear_backward_weight(x, dy, gradient, stage.weight, stage.out_channels)
        elif stage.kind == CONV2D:
            _convolution_backward(plan, index, packed, gradient, count, work, dy, dx)
        elif index == 0:
            continue
        elif stage.kind == MAX_POOL2D:
            for n in range(count):
                at = stage.mask * capacity + n * stage.outputs
                max_pool2d_backward(
                    stage,
                    part(dy, n * stage.outputs, stage.outputs),
                    part(work.wide_masks, at, stage.outputs),
                    part(dx, n * stage.inputs, stage.inputs),
                )
        elif stage.kind == AVG_POOL2D:
            for n in range(count):
                avg_pool2d_backward(
                    stage,
                    part(dy, n * stage.outputs, stage.outputs),
                    part(dx, n * stage.inputs, stage.inputs),
                )
        else:
            copy(part(dy, 0, dy.size), part(dx, 0, dx.size))


@inlined_kernel
def _convolution_backward(
    plan: Any, index: int, packed: Any, gradient: Any, count: int, work: Any, dy: Any, dx: Any
) -> None:
    stage = plan.stages[index]
    capacity = work.capacity
    step = stage.vectors * LANES
    blocks = stage.out_lanes // step
    taps = stage.kernel_size * stage.kernel_size * stage.in_channels
    cells = stage.conv_height * stage.conv_width
    outputs = part(plan.offsets, stage.output_offsets, cells)
    size = padded_size(stage)
    if index > 0:
        fill(work.filters)
        lay_out_for_input(stage, packed, work.filters)
    for n in range(count):
        padded = part(work.padded, stage.padded * capacity + n * size, size)
        mask = part(work.masks, stage.mask * capacity + n * stage.outputs, stage.outputs)
        delta = part(dy, n * stage.outputs, stage.outputs)
        for block in range(blocks):
            weight = stage.weight + block * taps * step
            if stays_in_registers(stage):
                add_pooled_tap_products(stage, block, padded, delta, mask, gradient, weight)
            else:
                spread(stage, block, delta, mask, work.conv)
                add_tap_products(stage, work.conv, padded, outputs, gradient, weight)
        if stage.bias >= 0:
            add_bias_gradient(stage, delta, mask, gradient)
        if index > 0:
            dpadded = part(work.dpadded, 0, size)
            fill(dpadded)
            add_to_input(stage, delta, mask, work.filters, dpadded)
            _unpad(stage, dpadded, part(dx, n * stage.inputs, stage.inputs))


@kernel
def _unpad(stage: Any, dpadded: Any, dx: Any) -> None:
    """Copy the gradient of an image out of that with its border."""
    run = stage.width * stage.in_lanes
    row = (stage.width + 2 * stage.padding) * stage.in_lanes
    corner = stage.padding * (row + stage.in_lanes)
    for r in range(stage.height):
        copy(part(dpadded, corner + r * row, run), part(dx, r * run, run))
