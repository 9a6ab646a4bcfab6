"""The forward pass of a tile of images, stage by stage.

Each thread has a buffer `outputs`. It holds the outputs of every stage as a contiguous array
(count, y_size), so the next stage reads numbers that are still in the cache. For the backward pass,
convolutions also store their padded inputs (count, height, width, channels).

Each kind of stage has a stage kernel, which sets its pre-activations. Its parameters:

    stage: the stage.
    offsets: as in `stages.Plan`.
    packed: the parameters.
    work: workspace of the thread; `work.outputs` is changed.
    count: number of images in the tile.

Cost per image: the cost of the stages (see `dense`, `simd.sparse`, `fused_convolution` and
`pool_stages`), one pass over the outputs for the activation, and another one for the bias. A
convolution adds its bias without this pass, but needs one pass over its input for the padding.
"""

from typing import Any

from backends.numba.kernels import dense, fused_convolution, pool_stages
from backends.numba.kernels.compilation import call, kernel, stage_kernel
from backends.numba.kernels.elementwise import SIGMOID, activate, clear_unused_lanes
from backends.numba.kernels.stages import inputs_of, outputs_of
from backends.numba.kernels.views import copy, view


@kernel
def forward(plan: Any, packed: Any, work: Any, count: int) -> None:
    """Compute the outputs of all stages for a tile.

    Args:
        plan: the program.
        packed: the parameters.
        work: workspace of the thread, with the inputs of the first stage, or its pre-activations if
            it has no kernel. `work.outputs` is set; the last stage's outputs are the logits.
        count: number of images in the tile.
    """
    for index in range(len(plan.stages)):
        stage = plan.stages[index]
        if stage.forward:
            call(stage.forward, stage, plan.offsets, packed, work, count)
        finish(stage, work, count)


@kernel
def finish(stage: Any, work: Any, count: int) -> None:
    """Apply the activation to the pre-activations of a stage."""
    y = outputs_of(stage, work.outputs, work, count)
    activate(stage.activation, y)
    if stage.activation == SIGMOID:  # other activations of 0 are 0
        clear_unused_lanes(stage, y)


@stage_kernel
def linear(stage: Any, offsets: Any, packed: Any, work: Any, count: int) -> None:
    """Multiply the inputs by the weights, and add the bias."""
    x = inputs_of(stage, work.outputs, work, count)
    y = outputs_of(stage, work.outputs, work, count)
    dense.linear(x, packed, stage.weight, stage.out_channels, y)
    if stage.bias >= 0:
        dense.add_bias(y, view(packed, stage.bias, stage.out_channels))


@stage_kernel
def conv2d(stage: Any, offsets: Any, packed: Any, work: Any, count: int) -> None:
    """Convolve, add the bias, and pool if the stage includes it; store the padded inputs.

    The padded inputs of the first stage are already stored.
    """
    cast = packed.dtype.type
    x = inputs_of(stage, work.outputs, work, count)
    y = outputs_of(stage, work.outputs, work, count)
    taps = stage.kernel_size * stage.kernel_size * stage.in_channels
    tap_offsets = view(offsets, stage.tap_offsets, taps)
    for n in range(count):
        if not stage.is_first:
            pad(stage, view(x, n * stage.x_size, stage.x_size), n, work, cast(1), cast(0))
        at = stage.padded_offset * work.capacity + n * stage.padded_size
        padded = view(work.padded, at, stage.padded_size)
        mask = view(work.masks, stage.mask_offset * work.capacity + n * stage.y_size, stage.y_size)
        target = view(y, n * stage.y_size, stage.y_size)
        fused_convolution.conv2d(stage, padded, packed, tap_offsets, work.no_bias, target, mask)


@kernel
def pad(stage: Any, x: Any, n: int, work: Any, scale: Any, shift: Any) -> None:
    """Set the interior of padded input number n to a scaled and shifted image.

    The border stays 0.
    """
    at = stage.padded_offset * work.capacity + n * stage.padded_size
    padded = view(work.padded, at, stage.padded_size)
    lanes = stage.in_lanes
    run = stage.width * lanes
    row = (stage.width + 2 * stage.padding) * lanes
    corner = stage.padding * (row + lanes)
    cast = padded.dtype.type
    rows = stage.height
    if stage.padding == 0:
        rows, run = 1, rows * run
    for r in range(rows):
        source = view(x, r * run, run)
        target = view(padded, corner + r * row, run)
        for i in range(run):
            target[i] = cast(source[i]) * scale + shift


@stage_kernel
def max_pool2d(stage: Any, offsets: Any, packed: Any, work: Any, count: int) -> None:
    """Set the outputs to the maxima of patches, and store the tie masks."""
    x = inputs_of(stage, work.outputs, work, count)
    y = outputs_of(stage, work.outputs, work, count)
    for n in range(count):
        source = view(x, n * stage.x_size, stage.x_size)
        target = view(y, n * stage.y_size, stage.y_size)
        at = stage.mask_offset * work.capacity + n * stage.y_size
        pool_stages.max_pool2d(stage, source, target, view(work.wide_masks, at, stage.y_size))


@stage_kernel
def avg_pool2d(stage: Any, offsets: Any, packed: Any, work: Any, count: int) -> None:
    """Set the outputs to the means of patches."""
    x = inputs_of(stage, work.outputs, work, count)
    y = outputs_of(stage, work.outputs, work, count)
    for n in range(count):
        source = view(x, n * stage.x_size, stage.x_size)
        pool_stages.avg_pool2d(stage, source, view(y, n * stage.y_size, stage.y_size))


@stage_kernel
def activation(stage: Any, offsets: Any, packed: Any, work: Any, count: int) -> None:
    """Copy the inputs."""
    x = inputs_of(stage, work.outputs, work, count)
    y = outputs_of(stage, work.outputs, work, count)
    copy(view(x, 0, x.size), view(y, 0, y.size))
