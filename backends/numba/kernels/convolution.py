"""Convolution of stride 1 and its gradients, as single operations.

Layout: padded images x (N, C, H, W), filters (O, C, kh, kw), outputs y (N, O, OH, OW).

Every inner loop runs over a whole plane. While an output plane is computed, its rows have the width
W of the input. For output p, tap (c, i, j) of a filter then reads input c·H·W + i·W + j + p, for
all p from 0 to `span` − 1:

    input (H, W)            output plane (OH, W)
    ┌───────────────┐       ┌───────────┬───┐
    │ tap 0 ▒▒▒▒▒▒▒▒│       │ OW columns│ x │  The last kw − 1 columns (x) are not copied to y.
    │▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒│       │           │ x │  In the gradients they are zero.
    │▒▒▒▒           │       └───────────┴───┘
    └───────────────┘

One long loop vectorizes better than OH short ones. Each pass over the plane computes four taps, so
that the plane is read and written a quarter as often.

Offsets are unsigned. For a signed index, Numba checks at each access whether it is negative and
counts from the end, and the loop does not vectorize.

Cost per image: 2·O·C·kh·kw·span floating-point operations in the forward pass, and as many for each
of dweight and dx, where span = (OH − 1)·W + OW.
"""

from typing import Any

import numpy as np
from numba import njit

from backends.numba.kernels.compilation import allocating_entry
from backends.numba.kernels.tiles import IMAGES_PER_TILE


@njit(inline="always")
def _tap_offsets(channels: int, kh: int, kw: int, width: int, plane: int) -> Any:
    """Return for each filter tap the offset, in a flat image, of its input for output 0."""
    offsets = np.empty(channels * kh * kw, np.uintp)
    for c in range(channels):
        for i in range(kh):
            for j in range(kw):
                offsets[(c * kh + i) * kw + j] = c * plane + i * width + j
    return offsets


@njit(inline="always")
def _add_taps(target: Any, source: Any, taps: Any, offsets: Any, span: Any) -> None:
    """Add Σₖ taps[k] · source[offsets[k] + p] to target[p], for all p < `span`."""
    whole = len(taps) // 4 * 4
    for k in range(0, whole, 4):
        tap0, tap1, tap2, tap3 = taps[k], taps[k + 1], taps[k + 2], taps[k + 3]
        at0, at1, at2, at3 = offsets[k], offsets[k + 1], offsets[k + 2], offsets[k + 3]
        for p in range(span):
            target[p] += (
                tap0 * source[at0 + p]
                + tap1 * source[at1 + p]
                + tap2 * source[at2 + p]
                + tap3 * source[at3 + p]
            )
    for k in range(whole, len(taps)):
        tap, at = taps[k], offsets[k]
        for p in range(span):
            target[p] += tap * source[at + p]


@njit(inline="always")
def _add_dot_products(totals: Any, plane: Any, source: Any, offsets: Any, span: Any) -> None:
    """Add Σₚ plane[p] · source[offsets[k] + p] to totals[k], for all k."""
    zero = plane.dtype.type(0)
    whole = len(totals) // 4 * 4
    for k in range(0, whole, 4):
        at0, at1, at2, at3 = offsets[k], offsets[k + 1], offsets[k + 2], offsets[k + 3]
        total0, total1, total2, total3 = zero, zero, zero, zero
        for p in range(span):
            value = plane[p]
            total0 += value * source[at0 + p]
            total1 += value * source[at1 + p]
            total2 += value * source[at2 + p]
            total3 += value * source[at3 + p]
        totals[k] += total0
        totals[k + 1] += total1
        totals[k + 2] += total2
        totals[k + 3] += total3
    for k in range(whole, len(totals)):
        at = offsets[k]
        total = zero
        for p in range(span):
            total += plane[p] * source[at + p]
        totals[k] += total


@allocating_entry
def conv2d(x: Any, weight: Any, bias: Any, y: Any, first: int, last: int) -> None:
    """Set y for tiles `first` to `last` − 1 of the images x."""
    channels, height, width = x.shape[1:]
    out_channels, _, kh, kw = weight.shape
    oh, ow = y.shape[2:]
    span = np.uintp((oh - 1) * width + ow)
    images = x.reshape(x.shape[0], -1)
    filters = weight.reshape(out_channels, -1)
    offsets = _tap_offsets(channels, kh, kw, width, height * width)
    plane = np.empty(oh * width, x.dtype)
    for n in range(first * IMAGES_PER_TILE, min(last * IMAGES_PER_TILE, len(x))):
        for o in range(out_channels):
            plane[:] = bias[o]
            _add_taps(plane, images[n], filters[o], offsets, span)
            for row in range(oh):
                y[n, o, row] = plane[row * width : row * width + ow]


@allocating_entry
def conv2d_backward(
    dy: Any, x: Any, weight: Any, dx: Any, dweights: Any, dbiases: Any, first: int, last: int
) -> None:
    """Set the gradients for tiles `first` to `last` − 1.

    The gradient of an input plane is a convolution of the output gradients with the filters rotated
    by 180°. Each plane of output gradients is preceded and followed by as many zeros as taps reach.

    Args:
        dy: (N, O, OH, OW).
        x: (N, C, H, W), padded.
        weight: (O, C, kh, kw).
        dx: gradient of the padded images, (N, C, H, W); not computed if it has no images.
        dweights: sum over the images of each tile, (tiles, O, C, kh, kw).
        dbiases: sum over the images of each tile, (tiles, O).
        first: first tile.
        last: last tile, exclusive.
    """
    channels, height, width = x.shape[1:]
    out_channels, _, kh, kw = weight.shape
    oh, ow = dy.shape[2:]
    taps = kh * kw
    span = np.uintp((oh - 1) * width + ow)
    whole_plane = np.uintp(height * width)
    images = x.reshape(x.shape[0], -1)
    totals = dweights.reshape(len(dweights), out_channels, -1)
    offsets = _tap_offsets(channels, kh, kw, width, height * width)

    need_dx = dx.shape[0] > 0
    reach = (kh - 1) * width + kw - 1
    stride = reach + height * width
    planes = np.zeros(out_channels * stride, x.dtype)
    rotated_offsets = np.empty(out_channels * taps, np.uintp)
    rotated = np.empty((channels, out_channels * taps), x.dtype)
    for o in range(out_channels):
        for i in range(kh):
            for j in range(kw):
                k = (o * kh + i) * kw + j
                rotated_offsets[k] = o * stride + reach - (i * width + j)
                for c in range(channels):
                    rotated[c, k] = weight[o, c, i, j]

    dweights[first:last] = 0
    dbiases[first:last] = 0
    for n in range(first * IMAGES_PER_TILE, min(last * IMAGES_PER_TILE, len(x))):
        tile = n // IMAGES_PER_TILE
        for o in range(out_channels):
            plane = planes[o * stride + reach : (o + 1) * stride]
            for row in range(oh):
                plane[row * width : row * width + ow] = dy[n, o, row]
            dbiases[tile, o] += plane.sum()
            _add_dot_products(totals[tile, o], plane, images[n], offsets, span)
        if need_dx:
            for c in range(channels):
                target = dx[n, c].reshape(-1)
                target[:] = 0
                _add_taps(target, planes, rotated[c], rotated_offsets, whole_plane)
