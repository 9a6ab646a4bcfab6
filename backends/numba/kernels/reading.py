"""Kernels that copy the images of a tile from the data set, for the first stage.

A linear first stage needs no copy (see `input_layer`).

Parameters:
    stage: the first stage.
    packed: the parameters.
    images: the data set, `workspace.Images`.
    tile: the images to read, `workspace.Tile`.
    work: workspace of the thread, which is changed.
"""

from typing import Any

from backends.numba.kernels.compilation import kernel, stage_kernel
from backends.numba.kernels.forward import pad
from backends.numba.kernels.simd.sparse import prefetch
from backends.numba.kernels.stages import inputs_of
from backends.numba.kernels.views import pointer, view

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


@kernel
def _prefetch_pixels(images: Any, rows: Any, position: int) -> None:
    """Prefetch the pixels of an image that is needed soon.

    The processor cannot predict their address, because images are read in random order.
    """
    size = images.pixels.shape[1]
    at = rows[min(position + PREFETCH_DISTANCE, len(rows) - 1)] * size
    prefetch(pointer(images.pixels, at), pointer(images.pixels, at + size))
