"""The forward pass of a tile of images, from pixels to logits.

Each thread has a buffer `outputs`. It holds the outputs of every stage as a contiguous array
(count, y_size), so the next stage reads numbers that are still in the cache. For the backward pass,
convolutions also store their padded inputs (count, height, width, channels).

Cost per image: the cost of the stages (see `dense`, `simd.sparse`, `fused_convolution` and
`pool_stages`), one pass over the outputs for the activation, and another one for the bias. A
convolution adds its bias without this pass, but needs one pass over its input for the padding.
"""

from typing import Any

from backends.numba.kernels.compilation import image_kernel, inlined_kernel, kernel
from backends.numba.kernels.dense import add_bias, linear
from backends.numba.kernels.elementwise import activate, clear_unused_lanes
from backends.numba.kernels.fused_convolution import conv2d
from backends.numba.kernels.pool_stages import avg_pool2d, max_pool2d
from backends.numba.kernels.simd.sparse import gather_axpy, prefetch
from backends.numba.kernels.stages import (
    AVG_POOL2D,
    CONV2D,
    LINEAR,
    MAX_POOL2D,
    SPARSE_LINEAR,
    padded_size,
    rows_of,
)
from backends.numba.kernels.views import copy, fill_zero, pointer, view

# Number of images whose computation takes about as long as one access to main memory.
PREFETCH_DISTANCE = 4


@inlined_kernel
def forward(plan: Any, packed: Any, images: Any, tile: Any, work: Any) -> None:
    """Compute the outputs of all stages for a tile.

    Args:
        plan: the program.
        packed: the parameters.
        images: the data set.
        tile: the images to process.
        work: workspace of the thread. `work.outputs` is set; the last stage's outputs are the
            logits.
    """
    stages = plan.stages
    for index in range(len(stages)):
        stage = stages[index]
        y = rows_of(work.outputs, stage.y_offset, stage.y_size, work.capacity, tile.images)
        x = rows_of(work.outputs, stage.x_offset, stage.x_size, work.capacity, tile.images)
        if index == 0 and stage.kind != CONV2D and stage.kind != SPARSE_LINEAR:
            read_pixels(stage, images, tile, x)
        if stage.kind == LINEAR:
            linear(x, packed, stage.weight, stage.out_channels, y)
        elif stage.kind == SPARSE_LINEAR:
            _sparse_linear(stage, packed, images, tile, y)
        elif stage.kind == CONV2D:
            convolve(plan, index, packed, images, tile, work, x, y)
        elif stage.kind == MAX_POOL2D or stage.kind == AVG_POOL2D:
            pool(plan, stage, work, x, y)
        else:
            copy(view(x, 0, x.size), view(y, 0, y.size))
        if stage.bias >= 0 and stage.kind != CONV2D:
            add_bias(y, view(packed, stage.bias, stage.out_channels))
        activate(stage.activation, y)
        clear_unused_lanes(stage, y)


@inlined_kernel
def read_pixels(stage: Any, images: Any, tile: Any, x: Any) -> None:
    """Set the input x of the first stage to the scaled and shifted pixels of a tile."""
    cast = x.dtype.type
    scale, shift = cast(images.scale), cast(images.shift)
    pixels = stage.height * stage.width * stage.in_channels
    for n in range(len(x)):
        source = images.pixels[tile.rows[tile.first + n]]
        target = view(x, n * stage.x_size, pixels)
        for i in range(pixels):
            target[i] = cast(source[i]) * scale + shift


@inlined_kernel
def _prefetch_rows(images: Any, rows: Any, position: int) -> None:
    """Prefetch the CSR rows that are needed soon.

    The processor cannot predict these addresses, because images are read in random order. The
    `indptr` of a row is prefetched first, because the addresses of its `indices` and `data` are
    computed from it. These are prefetched PREFETCH_DISTANCE images later.
    """
    last = len(rows) - 1
    at = rows[min(position + 2 * PREFETCH_DISTANCE, last)] * images.groups
    prefetch(pointer(images.indptr, at), pointer(images.indptr, at + images.groups + 1))
    at = rows[min(position + PREFETCH_DISTANCE, last)] * images.groups
    begin, end = images.indptr[at], images.indptr[at + images.groups]
    prefetch(pointer(images.indices, begin), pointer(images.indices, end))
    prefetch(pointer(images.data, begin), pointer(images.data, end))


@inlined_kernel
def _sparse_linear(stage: Any, packed: Any, images: Any, tile: Any, y: Any) -> None:
    """Set y to the product of CSR images and weights, before bias and activation."""
    width = stage.y_size
    flat = view(y, 0, y.size)
    fill_zero(flat)
    for n in range(len(y)):
        _prefetch_rows(images, tile.rows, tile.first + n)
        at = tile.rows[tile.first + n] * images.groups
        begin, end = images.indptr[at], images.indptr[at + images.groups]
        gather_axpy(
            pointer(y, n * width), pointer(packed, stage.weight), width, width,
            pointer(images.indices, begin), pointer(images.data, begin), end - begin,
        )  # fmt: skip
    scale = y.dtype.type(images.scale)
    for i in range(len(flat)):
        flat[i] *= scale


@image_kernel
def pool(plan: Any, stage: Any, work: Any, x: Any, y: Any) -> None:
    """Set y to x after pooling, for a stage that consists of pooling only."""
    for n in range(len(y)):
        source = view(x, n * stage.x_size, stage.x_size)
        target = view(y, n * stage.y_size, stage.y_size)
        if stage.kind == MAX_POOL2D:
            at = stage.mask_offset * work.capacity + n * stage.y_size
            max_pool2d(stage, source, target, view(work.wide_masks, at, stage.y_size))
        else:
            avg_pool2d(stage, source, target)


@image_kernel
def convolve(
    plan: Any, index: int, packed: Any, images: Any, tile: Any, work: Any, x: Any, y: Any
) -> None:
    """Set y to the pre-activations of a convolution for a tile, and store the padded inputs.

    Args:
        plan: the program.
        index: position of the stage in the program.
        packed: the parameters.
        images: the data set. The first stage reads its input from it.
        tile: the images to process.
        work: workspace of the thread.
        x: input of the stage, (count, x_size). The first stage does not read it.
        y: the pre-activations, (count, y_size), after pooling if the stage includes it.
    """
    stage = plan.stages[index]
    cast = packed.dtype.type
    size = padded_size(stage)
    taps = stage.kernel_size * stage.kernel_size * stage.in_channels
    offsets = view(plan.offsets, stage.tap_offsets, taps)
    for n in range(len(y)):
        padded = view(work.padded, stage.padded_offset * work.capacity + n * size, size)
        if index == 0:
            pixels = images.pixels[tile.rows[tile.first + n]]
            _pad(stage, pixels, padded, cast(images.scale), cast(images.shift))
        else:
            row = view(x, n * stage.x_size, stage.x_size)
            _pad(stage, row, padded, cast(1), cast(0))
        mask = view(work.masks, stage.mask_offset * work.capacity + n * stage.y_size, stage.y_size)
        target = view(y, n * stage.y_size, stage.y_size)
        conv2d(stage, padded, packed, offsets, work.bias, work.conv, target, mask)


@kernel
def _pad(stage: Any, x: Any, padded: Any, scale: Any, shift: Any) -> None:
    """Set the interior of `padded` to a scaled and shifted image; its border stays 0."""
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
