"""A block of images through all stages, from pixels to logits.

What a stage computes lies in the thread's arena, an image a row: (block, outputs), maps with their
channels last, filled up to whole vectors. The rows of a stage for all images of the block lie
together, so the next stage reads what was just written. Convolutions also keep their inputs with a
border, (block, height, width, channels), since the way back needs them.

Cost per image: that of the stages (see `dense`, `sparse`, `fused_convolution` and `feature_maps`),
and for each stage a pass over its outputs for the bias, one for the activation, and for a
convolution one over its inputs, to put the border around them.
"""

from typing import Any

from backends.numba.kernels.compilation import inlined_kernel, kernel
from backends.numba.kernels.dense import add_bias, linear
from backends.numba.kernels.elementwise import activate, clear_filling
from backends.numba.kernels.feature_maps import avg_pool2d, max_pool2d
from backends.numba.kernels.fused_convolution import conv2d
from backends.numba.kernels.sparse import add_sparse_product
from backends.numba.kernels.stages import (
    AVG_POOL2D,
    CONV2D,
    LINEAR,
    MAX_POOL2D,
    SPARSE_LINEAR,
    padded_size,
    rows_of,
)
from backends.numba.kernels.vectors import fetch_ahead
from backends.numba.kernels.views import copy, fill, part

# Memory answers so much later than the kernels ask.
IMAGES_AHEAD = 4


@inlined_kernel
def forward(
    plan: Any,
    packed: Any,
    images: Any,
    rows: Any,
    first: int,
    count: int,
    work: Any,
) -> None:
    """Take a block of images through all stages.

    Args:
        plan: the stages.
        packed: the parameters.
        images: the data set.
        rows: of the data set.
        first: where in `rows` the block begins.
        count: images in the block.
        work: receives the outputs.
    """
    stages = plan.stages
    capacity = work.capacity
    for index in range(len(stages)):
        stage = stages[index]
        y = rows_of(work.outputs, stage.y, capacity, count, stage.outputs)
        x = rows_of(work.outputs, stage.x, capacity, count, stage.inputs)
        if index == 0 and stage.kind != CONV2D and stage.kind != SPARSE_LINEAR:
            read_pixels(stage, images, rows, first, x)
        if stage.kind == LINEAR:
            linear(x, packed, stage.weight, stage.out_channels, y)
        elif stage.kind == SPARSE_LINEAR:
            _sparse_linear(stage, packed, images, rows, first, y)
        elif stage.kind == CONV2D:
            convolve(plan, index, packed, images, rows, first, work, x, y)
        elif stage.kind == MAX_POOL2D or stage.kind == AVG_POOL2D:
            pool(stage, work, x, y)
        else:
            copy(part(x, 0, x.size), part(y, 0, y.size))
        if stage.bias >= 0 and stage.kind != CONV2D:
            add_bias(y, part(packed, stage.bias, stage.out_channels))
        activate(stage.activation, y)
        clear_filling(stage, y)


@inlined_kernel
def read_pixels(stage: Any, images: Any, rows: Any, first: int, x: Any) -> None:
    """Write the pixels of a block as the first stage takes them."""
    number = x.dtype.type
    scale, shift = number(images.scale), number(images.shift)
    pixels = stage.height * stage.width * stage.in_channels
    for n in range(len(x)):
        source = images.pixels[rows[first + n]]
        target = part(x, n * stage.inputs, pixels)
        for i in range(pixels):
            target[i] = number(source[i]) * scale + shift


@inlined_kernel
def _fetch_list(images: Any, rows: Any, place: int) -> None:
    """Begin to fetch the list of an image that comes soon; images lie in memory in another order.

    Where it lies must be known first, so that is fetched earlier still.
    """
    last = len(rows) - 1
    at = rows[min(place + 2 * IMAGES_AHEAD, last)] * images.groups
    fetch_ahead(images.starts, at, at + images.groups + 1)
    at = rows[min(place + IMAGES_AHEAD, last)] * images.groups
    begin, end = images.starts[at], images.starts[at + images.groups]
    fetch_ahead(images.columns, begin, end)
    fetch_ahead(images.values, begin, end)


@inlined_kernel
def _sparse_linear(stage: Any, packed: Any, images: Any, rows: Any, first: int, y: Any) -> None:
    """Compute a sparse first stage from the lists of the data set, before bias and activation."""
    width = stage.outputs
    flat = part(y, 0, y.size)
    fill(flat)
    for n in range(len(y)):
        _fetch_list(images, rows, first + n)
        at = rows[first + n] * images.groups
        begin, end = images.starts[at], images.starts[at + images.groups]
        add_sparse_product(
            part(y, n * width, width), packed, stage.weight, width,
            images.columns, images.values, begin, end,
        )  # fmt: skip
    scale = y.dtype.type(images.scale)
    for i in range(len(flat)):
        flat[i] *= scale


@inlined_kernel
def pool(stage: Any, work: Any, x: Any, y: Any) -> None:
    """Compute a pooling that no convolution takes along."""
    for n in range(len(y)):
        maps = part(x, n * stage.inputs, stage.inputs)
        pooled = part(y, n * stage.outputs, stage.outputs)
        if stage.kind == MAX_POOL2D:
            at = stage.mask * work.capacity + n * stage.outputs
            max_pool2d(stage, maps, pooled, part(work.wide_masks, at, stage.outputs))
        else:
            avg_pool2d(stage, maps, pooled)


@inlined_kernel
def convolve(
    plan: Any,
    index: int,
    packed: Any,
    images: Any,
    rows: Any,
    first: int,
    work: Any,
    x: Any,
    y: Any,
) -> None:
    """Compute a convolution, before its activation; keep the inputs with their borders."""
    stage = plan.stages[index]
    number = packed.dtype.type
    size = padded_size(stage)
    taps = stage.kernel_size * stage.kernel_size * stage.in_channels
    offsets = part(plan.offsets, stage.tap_offsets, taps)
    for n in range(len(y)):
        padded = part(work.padded, stage.padded * work.capacity + n * size, size)
        if index == 0:
            pixels = images.pixels[rows[first + n]]
            _pad(stage, pixels, padded, number(images.scale), number(images.shift))
        else:
            row = part(x, n * stage.inputs, stage.inputs)
            _pad(stage, row, padded, number(1), number(0))
        mask = part(work.masks, stage.mask * work.capacity + n * stage.outputs, stage.outputs)
        maps = part(y, n * stage.outputs, stage.outputs)
        conv2d(stage, padded, packed, offsets, work.start, work.conv, maps, mask)


@kernel
def _pad(stage: Any, x: Any, padded: Any, scale: Any, shift: Any) -> None:
    """Copy an image into its border of zeros, and scale and shift its pixels."""
    lanes = stage.in_lanes
    run = stage.width * lanes
    row = (stage.width + 2 * stage.padding) * lanes
    corner = stage.padding * (row + lanes)
    number = padded.dtype.type
    rows = stage.height
    if stage.padding == 0:
        rows, run = 1, rows * run
    for r in range(rows):
        source = part(x, r * run, run)
        target = part(padded, corner + r * row, run)
        for i in range(run):
            target[i] = number(source[i]) * scale + shift
