"""Kernels that read the images of a tile from the data set, for the first stage.

Parameters:
    stage: the first stage.
    packed: the parameters.
    images: the data set, `workspace.Images`.
    tile: the images to read, `workspace.Tile`.
    work: workspace of the thread, which is changed.
"""

from typing import Any

from backends.numba.kernels.compilation import kernel, stage_kernel
from backends.numba.kernels.dense import add_bias, pixel_linear
from backends.numba.kernels.forward import pad
from backends.numba.kernels.simd.sparse import gather_axpy, prefetch, prefetch_rows
from backends.numba.kernels.stages import inputs_of, outputs_of
from backends.numba.kernels.views import fill_zero, pointer, view

# Number of images whose computation takes about as long as one access to main memory.
PREFETCH_DISTANCE = 4


@stage_kernel
def read_pixels(stage: Any, packed: Any, images: Any, tile: Any, work: Any) -> None:
    """Set the inputs of the first stage to scaled and shifted pixels."""
    cast = packed.dtype.type
    scale, shift = cast(images.scale), cast(images.shift)
    x = inputs_of(stage, work.outputs, work, tile.images)
    pixels = stage.height * stage.width * stage.in_channels
    for n in range(tile.images):
        _prefetch_pixels(images, tile.rows, tile.first + n)
        source = images.pixels[tile.rows[tile.first + n]]
        target = view(x, n * stage.x_size, pixels)
        for i in range(pixels):
            target[i] = cast(source[i]) * scale + shift


@stage_kernel
def pad_pixels(stage: Any, packed: Any, images: Any, tile: Any, work: Any) -> None:
    """Set the padded inputs of a convolution to scaled and shifted pixels."""
    cast = packed.dtype.type
    scale, shift = cast(images.scale), cast(images.shift)
    for n in range(tile.images):
        _prefetch_pixels(images, tile.rows, tile.first + n)
        pixels = images.pixels[tile.rows[tile.first + n]]
        pad(stage, pixels, n, work, scale, shift)


@stage_kernel
def multiply_sparse(stage: Any, packed: Any, images: Any, tile: Any, work: Any) -> None:
    """Set the pre-activations of a linear first stage from CSR images."""
    y = outputs_of(stage, work.outputs, work, tile.images)
    width = stage.y_size
    fill_zero(view(y, 0, y.size))
    for n in range(tile.images):
        _prefetch_rows(images, tile.rows, tile.first + n)
        at = tile.rows[tile.first + n] * images.groups
        begin, end = images.indptr[at], images.indptr[at + images.groups]
        gather_axpy(
            pointer(y, n * width), pointer(packed, stage.weight), width, width,
            pointer(images.indices, begin), pointer(images.data, begin), end - begin,
        )  # fmt: skip
    _scale_and_add_bias(stage, packed, images, y)


@stage_kernel
def multiply_pixels(stage: Any, packed: Any, images: Any, tile: Any, work: Any) -> None:
    """Set the pre-activations of a linear first stage from pixels."""
    y = outputs_of(stage, work.outputs, work, tile.images)
    later = pointer(tile.rows, tile.next)
    prefetch_rows(pointer(images.pixels, 0), stage.x_size, later, tile.images)
    rows = pointer(tile.rows, tile.first)
    pixel_linear(images.pixels, rows, packed, stage.weight, stage.out_channels, y)
    _scale_and_add_bias(stage, packed, images, y)


@kernel
def _scale_and_add_bias(stage: Any, packed: Any, images: Any, y: Any) -> None:
    """Multiply y by the scale of the pixels, and add the bias."""
    scale = y.dtype.type(images.scale)
    flat = view(y, 0, y.size)
    for i in range(len(flat)):
        flat[i] *= scale
    if stage.bias >= 0:
        add_bias(y, view(packed, stage.bias, stage.out_channels))


@kernel
def _prefetch_pixels(images: Any, rows: Any, position: int) -> None:
    """Prefetch the pixels of an image that is needed soon.

    The processor cannot predict their address, because images are read in random order.
    """
    size = images.pixels.shape[1]
    at = rows[min(position + PREFETCH_DISTANCE, len(rows) - 1)] * size
    prefetch(pointer(images.pixels, at), pointer(images.pixels, at + size))


@kernel
def _prefetch_rows(images: Any, rows: Any, position: int) -> None:
    """Prefetch the CSR rows that are needed soon.

    The `indptr` of a row is prefetched first, because the addresses of its `indices` and `data` are
    computed from it. These are prefetched PREFETCH_DISTANCE images later.
    """
    last = len(rows) - 1
    at = rows[min(position + 2 * PREFETCH_DISTANCE, last)] * images.groups
    prefetch(pointer(images.indptr, at), pointer(images.indptr, at + images.groups + 1))
    at = rows[min(position + PREFETCH_DISTANCE, last)] * images.groups
    begin, end = images.indptr[at], images.indptr[at + images.groups]
    prefetch(pointer(images.indices, begin), pointer(images.indices, end))
    prefetch(pointer(images.data, begin), pointer(images.data, end))
