"""The products of the images and the weights of a linear first stage, and their gradient.

The stage reads CSR rows or pixels from the data set. Each kernel computes with a range of the
inputs, and so reads or changes only the weights of these inputs.

Parameters of the stage kernels:

    stage: the first stage.
    images: the data set, `workspace.Images`.
    ranges: the inputs, `epoch.Ranges`.
"""

from typing import Any

from backends.numba.kernels.compilation import kernel, stage_kernel
from backends.numba.kernels.dense import add_bias, pixel_linear, pixel_linear_backward
from backends.numba.kernels.elementwise import add, shrink
from backends.numba.kernels.reading import PREFETCH_DISTANCE
from backends.numba.kernels.simd.sparse import gather_axpy, prefetch, scatter_axpy
from backends.numba.kernels.views import copy, fill_zero, pointer, view, view_2d

# In a pass, all images change the same half of the weights, so fewer weights leave the first-level
# cache between two images. More passes are slower, because each of them begins every row once more.
UPDATE_PASSES = 2


@stage_kernel
def multiply_csr(stage: Any, packed: Any, images: Any, tile: Any, ranges: Any, y: Any) -> None:
    """Set y, (images of the tile, y_size), to the products of CSR rows and weights."""
    width = stage.y_size
    fill_zero(view(y, 0, tile.images * width))
    for n in range(tile.images):
        _prefetch_row(images, tile.rows, tile.first + n, ranges)
        begin, end = _entries(images, tile.rows[tile.first + n], ranges)
        gather_axpy(
            pointer(y, n * width), pointer(packed, stage.weight), width, width,
            pointer(images.indices, begin), pointer(images.data, begin), end - begin,
        )  # fmt: skip


@stage_kernel
def multiply_pixels(stage: Any, packed: Any, images: Any, tile: Any, ranges: Any, y: Any) -> None:
    """Set y, (images of the tile, y_size), to the products of pixels and weights."""
    begin, end = ranges.first_input, ranges.end_input
    pixel_linear(
        images.pixels, pointer(tile.rows, tile.first), pointer(tile.rows, tile.next),
        pointer(packed, stage.weight), stage.out_channels, begin, end,
        view_2d(y, 0, tile.images, stage.y_size),
    )  # fmt: skip


@kernel
def add_products(work: Any, begin: int, y: Any) -> None:
    """Set y to the sum over threads of the products of the images from number `begin` on."""
    width = y.shape[1]
    flat = view(y, 0, y.size)
    copy(view(work.products, begin * width, y.size), flat)
    for thread in range(1, work.threads):
        add(view(work.products, thread * work.products_row + begin * width, y.size), flat)


@kernel
def scale_and_add_bias(stage: Any, packed: Any, images: Any, y: Any) -> None:
    """Multiply y by the scale of the pixels, and add the bias."""
    scale = y.dtype.type(images.scale)
    flat = view(y, 0, y.size)
    for i in range(len(flat)):
        flat[i] *= scale
    if stage.bias >= 0:
        add_bias(y, view(packed, stage.bias, stage.out_channels))


@stage_kernel
def update_csr(
    stage: Any, target: Any, images: Any, rows: Any, step: Any, ranges: Any, work: Any
) -> None:
    """Add the gradient of a thread's weights to `target`, from CSR rows.

    There are several passes over the images, each for some of the weights.

    In the linear form of a step, `target` is the parameters, which are then multiplied by
    `step.shrink`. Otherwise, it is the sum of the gradients.
    """
    _begin(target, step, ranges)
    scale = target.dtype.type(images.scale)
    width, edges = stage.y_size, images.edges
    groups = ranges.end_group - ranges.first_group
    for number in range(UPDATE_PASSES):
        first = ranges.first_group + groups * number // UPDATE_PASSES
        after = ranges.first_group + groups * (number + 1) // UPDATE_PASSES
        if first == after:
            continue
        for n in range(step.batch):
            at = rows[step.first + n] * images.groups
            begin, end = images.indptr[at + first], images.indptr[at + after]
            scatter_axpy(
                pointer(target, stage.weight), width, width,
                pointer(images.indices, begin), pointer(images.data, begin), end - begin,
                pointer(work.deltas, n * work.deltas_row), scale,
            )  # fmt: skip
        if step.is_linear:
            shrink(target, edges[first] * width, edges[after] * width, step.shrink)


@stage_kernel
def update_pixels(
    stage: Any, target: Any, images: Any, rows: Any, step: Any, ranges: Any, work: Any
) -> None:
    """Do the same as `update_csr`, from pixels."""
    _begin(target, step, ranges)
    dy = view_2d(work.deltas, 0, step.batch, work.deltas_row)
    pixel_linear_backward(
        images.pixels, pointer(rows, step.first), images.scale, dy, pointer(target, stage.weight),
        stage.out_channels, ranges.first_input, ranges.end_input,
        step.shrink if step.is_linear else 1.0,
    )  # fmt: skip


@kernel
def _begin(target: Any, step: Any, ranges: Any) -> None:
    """Set the thread's weights to 0 if `target` is the sum of the gradients."""
    if not step.is_linear:
        fill_zero(view(target, ranges.input_begin, ranges.input_end - ranges.input_begin))


@kernel
def _entries(images: Any, row: int, ranges: Any) -> tuple[int, int]:
    """Return the begin and end of the nonzero pixels of an image in a thread's inputs."""
    at = row * images.groups
    return images.indptr[at + ranges.first_group], images.indptr[at + ranges.end_group]


@kernel
def _prefetch_row(images: Any, rows: Any, position: int, ranges: Any) -> None:
    """Prefetch the CSR rows that are needed soon.

    The `indptr` of a row is prefetched first, because the addresses of its `indices` and `data` are
    computed from it. These are prefetched PREFETCH_DISTANCE images later.
    """
    last = len(rows) - 1
    at = rows[min(position + 2 * PREFETCH_DISTANCE, last)] * images.groups
    begin, end = at + ranges.first_group, at + ranges.end_group + 1
    prefetch(pointer(images.indptr, begin), pointer(images.indptr, end))
    begin, end = _entries(images, rows[min(position + PREFETCH_DISTANCE, last)], ranges)
    prefetch(pointer(images.indices, begin), pointer(images.indices, end))
    prefetch(pointer(images.data, begin), pointer(images.data, end))
