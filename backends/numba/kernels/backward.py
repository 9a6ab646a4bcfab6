"""The backward pass of a tile of images, from the logits to all parameters.

The buffer `gradients` holds the gradients of the outputs in the layout of the buffer `outputs`.
Each stage except the first sets the gradient of its input. Each stage with parameters adds their
gradient to the buffer `gradient`, which has the same layout as the packed parameters.

Each kind of stage has one or two stage kernels, which read the gradient of the pre-activations. Its
parameters:

    stage: the stage.
    offsets: as in `stages.Plan`.
    packed: the parameters.
    gradient: gradient of the parameters.
    work: workspace of the thread; `work.gradients` is changed.
    count: number of images in the tile.
    position: position of the tile's first image in the batch.

Cost per image: at most twice the cost of `forward`. The first stage costs at most as much as in
`forward`, because it computes no gradient of its input.
"""

from typing import Any

from backends.numba.kernels import pool_stages
from backends.numba.kernels.compilation import call, kernel, stage_kernel
from backends.numba.kernels.dense import (
    linear_backward_bias,
    linear_backward_weight,
    linear_backward_x,
)
from backends.numba.kernels.elementwise import activate_backward
from backends.numba.kernels.fused_convolution import (
    add_filter_gradient,
    clear_filter_gradient,
    conv2d_backward,
    conv2d_backward_direct,
    frame_filters,
)
from backends.numba.kernels.stages import inputs_of, outputs_of
from backends.numba.kernels.views import copy, fill_zero, view


@kernel
def backward(plan: Any, packed: Any, gradient: Any, count: int, work: Any, position: int) -> None:
    """Add the gradient of a tile to the gradient of all parameters.

    For plain SGD, `gradient` may be `packed` itself, with gradients of the logits that are already
    multiplied by the negative learning rate: the additions then update the parameters. This is
    correct because each stage reads its weights, for the gradient of its input, before it changes
    them.

    Args:
        plan: the program, as in `stages.Plan`.
        packed: the packed parameters.
        gradient: gradient of the packed parameters; that of the weights of a first stage that
            reads CSR rows or pixels is not added.
        count: number of images in the tile.
        work: buffers of the thread, with the results of `forward` and the gradients of the logits.
        position: position of the tile's first image in the batch.
    """
    stages = plan.stages
    for back in range(len(stages)):
        stage = stages[len(stages) - 1 - back]
        y = outputs_of(stage, work.outputs, work, count)
        dy = outputs_of(stage, work.gradients, work, count)
        activate_backward(stage.activation, y, dy)
        call(stage.backward, stage, plan.offsets, packed, gradient, work, count, position)


@stage_kernel
def linear(
    stage: Any, offsets: Any, packed: Any, gradient: Any, work: Any, count: int, position: int
) -> None:
    """Add the gradients of weight and bias; set that of the input, except in the first stage."""
    x = inputs_of(stage, work.outputs, work, count)
    dx = inputs_of(stage, work.gradients, work, count)
    dy = outputs_of(stage, work.gradients, work, count)
    if stage.bias >= 0:
        linear_backward_bias(dy, view(gradient, stage.bias, stage.out_channels))
    if not stage.is_first:
        linear_backward_x(dy, packed, stage.weight, stage.out_channels, dx)
    linear_backward_weight(x, dy, gradient, stage.weight, stage.out_channels)


@stage_kernel
def input_linear(
    stage: Any, offsets: Any, packed: Any, gradient: Any, work: Any, count: int, position: int
) -> None:
    """Add the gradient of the bias; store that of the outputs, for `input_layer.update_…`."""
    dy = outputs_of(stage, work.gradients, work, count)
    if stage.bias >= 0:
        linear_backward_bias(dy, view(gradient, stage.bias, stage.out_channels))
    for n in range(count):
        target = view(work.deltas, (position + n) * work.deltas_row, stage.y_size)
        copy(view(dy, n * stage.y_size, stage.y_size), target)


@stage_kernel
def conv2d(
    stage: Any, offsets: Any, packed: Any, gradient: Any, work: Any, count: int, position: int
) -> None:
    """Add the gradients of filters and bias; set that of the input, except in the first stage."""
    dx = inputs_of(stage, work.gradients, work, count)
    dy = outputs_of(stage, work.gradients, work, count)
    capacity, size = work.capacity, stage.padded_size
    if not stage.is_first:
        frame_filters(stage, packed, work.filters)
    clear_filter_gradient(stage, work.dfilters)
    for n in range(count):
        padded = view(work.padded, stage.padded_offset * capacity + n * size, size)
        mask = view(work.masks, stage.mask_offset * capacity + n * stage.y_size, stage.y_size)
        dy_row = view(dy, n * stage.y_size, stage.y_size)
        dpadded = view(work.dpadded, 0, 0 if stage.is_first else size)
        fill_zero(dpadded)
        conv2d_backward(stage, padded, mask, dy_row, work, gradient, dpadded)
        if not stage.is_first:
            _unpad(stage, dpadded, view(dx, n * stage.x_size, stage.x_size))
    add_filter_gradient(stage, work.dfilters, gradient)


@stage_kernel
def conv2d_direct(
    stage: Any, offsets: Any, packed: Any, gradient: Any, work: Any, count: int, position: int
) -> None:
    """Do the same as `conv2d` for a stage for which `has_direct_gradient` holds."""
    dy = outputs_of(stage, work.gradients, work, count)
    capacity, size = work.capacity, stage.padded_size
    for n in range(count):
        padded = view(work.padded, stage.padded_offset * capacity + n * size, size)
        mask = view(work.masks, stage.mask_offset * capacity + n * stage.y_size, stage.y_size)
        dy_row = view(dy, n * stage.y_size, stage.y_size)
        conv2d_backward_direct(stage, padded, mask, dy_row, gradient)


@kernel
def _unpad(stage: Any, dpadded: Any, dx: Any) -> None:
    """Set dx to the gradient of a padded input, dpadded, without the padding."""
    run = stage.width * stage.in_lanes
    row = (stage.width + 2 * stage.padding) * stage.in_lanes
    corner = stage.padding * (row + stage.in_lanes)
    for r in range(stage.height):
        copy(view(dpadded, corner + r * row, run), view(dx, r * run, run))


@stage_kernel
def max_pool2d(
    stage: Any, offsets: Any, packed: Any, gradient: Any, work: Any, count: int, position: int
) -> None:
    """Set the gradient of the input, except in the first stage."""
    if stage.is_first:
        return
    dx = inputs_of(stage, work.gradients, work, count)
    dy = outputs_of(stage, work.gradients, work, count)
    for n in range(count):
        at = stage.mask_offset * work.capacity + n * stage.y_size
        pool_stages.max_pool2d_backward(
            stage,
            view(dy, n * stage.y_size, stage.y_size),
            view(work.wide_masks, at, stage.y_size),
            view(dx, n * stage.x_size, stage.x_size),
        )


@stage_kernel
def avg_pool2d(
    stage: Any, offsets: Any, packed: Any, gradient: Any, work: Any, count: int, position: int
) -> None:
    """Set the gradient of the input, except in the first stage."""
    if stage.is_first:
        return
    dx = inputs_of(stage, work.gradients, work, count)
    dy = outputs_of(stage, work.gradients, work, count)
    for n in range(count):
        dy_row = view(dy, n * stage.y_size, stage.y_size)
        pool_stages.avg_pool2d_backward(stage, dy_row, view(dx, n * stage.x_size, stage.x_size))


@stage_kernel
def activation(
    stage: Any, offsets: Any, packed: Any, gradient: Any, work: Any, count: int, position: int
) -> None:
    """Copy the gradient, except in the first stage."""
    if stage.is_first:
        return
    dx = inputs_of(stage, work.gradients, work, count)
    dy = outputs_of(stage, work.gradients, work, count)
    copy(view(dy, 0, dy.size), view(dx, 0, dx.size))
