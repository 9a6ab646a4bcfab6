"""Convolution of stride 1 and its gradients, as single operations.

Layout: images x (N, C, H, W), filters (O, C, kh, kw), outputs y (N, O, OH, OW).

An image is copied into a frame of zeros. Then, for each column j of a filter, all rows of the frame
are copied from column j to column j + OW − 1:

    frame (H', W')        columns 0 to 2   columns 1 to 3    H' = OH + kh − 1
    ┌───┬───┬───┬───┐     ┌───┬───┬───┐    ┌───┬───┬───┐     W' = OW + kw − 1
    │ a │ b │ c │ d │     │ a │ b │ c │    │ b │ c │ d │
    ├───┼───┼───┼───┤     ├───┼───┼───┤    ├───┼───┼───┤
    │ e │ f │ g │ h │     │ e │ f │ g │    │ f │ g │ h │
    └───┴───┴───┴───┘     └───┴───┴───┘    └───┴───┴───┘

In copy j of channel c, the inputs of tap (c, i, j) for all outputs are OH·OW neighbors, from row i
on. So `simd.conv_planes` computes convolutions as products of matrices. The gradient of the images
is a convolution of dy with the filters rotated by 180°.

Cost per image: 2·O·C·kh·kw·OH·OW floating-point operations, as many for the gradient of the
filters, and H·W instead of OH·OW for that of the images.
"""

from typing import Any

import numpy as np

from backends.numba.kernels.compilation import allocating_entry, kernel
from backends.numba.kernels.simd.conv_planes import conv_planes, conv_planes_wgrad, copy_rows
from backends.numba.kernels.tiles import IMAGES_PER_TILE
from backends.numba.kernels.vector_width import ALIGNMENT
from backends.numba.kernels.views import copy, pointer, view

# Minimum number of products in a lane of a sum, before its lanes are added up.
_MIN_TERMS = 400


@kernel
def _copy_to_frame(x: Any, n: int, margins: Any, frame: Any, rows: int, columns: int) -> None:
    """Copy image n to `frame` (C, rows, columns), without what lies outside of the frame."""
    (top, left), (_, channels, height, width) = margins, x.shape
    begin, end = max(0, -left), min(width, columns - left)
    first, last = max(0, -top), min(height, rows - top)
    together = last - first if width == columns else 1  # rows that are neighbors in both arrays
    for c in range(channels):
        for row in range(first, last, together):
            source = ((n * channels + c) * height + row) * width + begin
            target = (c * rows + row + top) * columns + left + begin
            count = together * (end - begin)
            copy(view(x, source, count), view(frame, target, count))


@kernel
def _set_columns(x: Any, n: int, margins: Any, shape: Any, frame: Any, columns: Any) -> None:
    """Set `columns` (C, kw, H', OW) for image n.

    Args:
        x: images.
        n: number of the image.
        margins: as in `conv2d`.
        shape: (OH, OW, kh, kw).
        frame: (C, H', W'), zeros; up to a vector more is read.
        columns: up to a vector more is written.
    """
    oh, ow, kh, kw = shape
    rows, width = oh + kh - 1, ow + kw - 1
    _copy_to_frame(x, n, margins, frame, rows, width)
    for c in range(x.shape[1]):
        for j in range(kw):
            copy_rows(
                pointer(columns, (c * kw + j) * rows * ow),
                pointer(frame, c * rows * width + j), width, rows, ow,
            )  # fmt: skip


@kernel
def _set_offsets(offsets: Any, channels: int, shape: Any) -> None:
    """Set the offset in `columns` of the inputs of each tap."""
    oh, ow, kh, kw = shape
    for c in range(channels):
        for i in range(kh):
            for j in range(kw):
                offsets[(c * kh + i) * kw + j] = ((c * kw + j) * (oh + kh - 1) + i) * ow


@allocating_entry
def conv2d(x: Any, weight: Any, bias: Any, margins: Any, y: Any, first: int, last: int) -> None:
    """Set y for tiles `first` to `last` − 1 of the images x.

    Args:
        x: (N, C, H, W).
        weight: (O, C, kh, kw).
        bias: (O,).
        margins: numbers of zeros above and left of an image. If they are negative, rows or columns
            of the image are left out. Those below and right of it follow from the shape of y.
        y: (N, O, OH, OW).
        first: first tile.
        last: last tile, exclusive.
    """
    out_channels, channels, kh, kw = weight.shape
    oh, ow = y.shape[2:]
    shape, rows, size, taps = (oh, ow, kh, kw), oh + kh - 1, oh * ow, channels * kh * kw
    stride = -(-size // ALIGNMENT) * ALIGNMENT
    frame = np.zeros(channels * rows * (ow + kw - 1) + ALIGNMENT, x.dtype)
    columns = np.empty(channels * kw * rows * ow + ALIGNMENT, x.dtype)
    outputs = np.empty(out_channels * stride, x.dtype)
    offsets = np.empty(taps, np.uintp)
    _set_offsets(offsets, channels, shape)
    for n in range(first * IMAGES_PER_TILE, min(last * IMAGES_PER_TILE, len(x))):
        _set_columns(x, n, margins, shape, frame, columns)
        conv_planes(
            pointer(outputs, 0), stride, pointer(bias, 0), pointer(weight, 0),
            pointer(columns, 0), pointer(offsets, 0), out_channels, taps, size,
        )  # fmt: skip
        for o in range(out_channels):
            plane = view(y, (n * out_channels + o) * size, size)
            copy(view(outputs, o * stride, size), plane)


@allocating_entry
def conv2d_wgrad(
    dy: Any, x: Any, padding: int, dweights: Any, dbiases: Any, first: int, last: int
) -> None:
    """Set the gradients of filters and bias for tiles `first` to `last` − 1.

    Args:
        dy: (N, O, OH, OW).
        x: (N, C, H, W).
        padding: zeros on each side of an image.
        dweights: sum over the images of each tile, (tiles, O, C, kh, kw).
        dbiases: sum over the images of each tile, (tiles, O).
        first: first tile.
        last: last tile, exclusive.
    """
    _, out_channels, channels, kh, kw = dweights.shape
    oh, ow = dy.shape[2:]
    shape, rows, size, taps = (oh, ow, kh, kw), oh + kh - 1, oh * ow, channels * kh * kw
    group = min(IMAGES_PER_TILE, -(-_MIN_TERMS // size))
    stride, image = -(-size // ALIGNMENT) * ALIGNMENT, channels * kw * rows * ow
    frame = np.zeros(channels * rows * (ow + kw - 1) + ALIGNMENT, x.dtype)
    columns = np.empty(group * image + ALIGNMENT, x.dtype)
    gradients = np.zeros(group * out_channels * stride, x.dtype)
    offsets = np.empty(taps, np.uintp)
    _set_offsets(offsets, channels, shape)
    dweights[first:last] = 0
    dbiases[first:last] = 0
    for tile in range(first, last):
        end = min((tile + 1) * IMAGES_PER_TILE, len(x))
        for begin in range(tile * IMAGES_PER_TILE, end, group):
            images = min(group, end - begin)
            for i in range(images):
                _set_columns(
                    x, begin + i, (padding, padding), shape, frame, view(columns, i * image, image)
                )
                for o in range(out_channels):
                    plane = view(dy, ((begin + i) * out_channels + o) * size, size)
                    dbiases[tile, o] += plane.sum()
                    copy(plane, view(gradients, (i * out_channels + o) * stride, size))
            conv_planes_wgrad(
                pointer(dweights, tile * out_channels * taps),
                pointer(gradients, 0), stride, pointer(columns, 0), image, pointer(offsets, 0),
                out_channels, taps, size, images,
            )  # fmt: skip


def conv2d_backward(
    dy: Any, x: Any, rotated: Any, padding: int, dx: Any, dweights: Any, dbiases: Any,
    first: int, last: int,
) -> None:  # fmt: skip
    """Set the gradients for tiles `first` to `last` − 1.

    Args:
        dy: (N, O, OH, OW).
        x: (N, C, H, W).
        rotated: filters rotated by 180°, (C, O, kh, kw).
        padding: as in `conv2d_wgrad`.
        dx: (N, C, H, W), or None if it is not needed.
        dweights: as in `conv2d_wgrad`.
        dbiases: as in `conv2d_wgrad`.
        first: first tile.
        last: last tile, exclusive.
    """
    conv2d_wgrad(dy, x, padding, dweights, dbiases, first, last)
    if dx is not None:
        channels, _, kh, kw = rotated.shape
        no_bias = np.zeros(channels, dx.dtype)
        conv2d(dy, rotated, no_bias, (kh - 1 - padding, kw - 1 - padding), dx, first, last)
