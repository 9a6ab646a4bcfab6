"""Direct convolution of stride 1, and its gradients.

Layout: images x (N, C, H, W), already padded; filters (O, C, kh, kw); feature maps y (N, O, OH,
OW).

Every loop runs over a whole plane. An output plane is computed as if its rows were W wide, like
those of the input: then, for one tap (i, j) of a filter, output p reads input p + i·W + j for all p
from 0 to `span` − 1, in one long loop that vectorises, instead of OH short ones. The kw − 1 columns
at the end of each row are nonsense, and are dropped when the plane is copied out; in the gradients
they are zero from the start.

Cost per image: 2·O·C·kh·kw·span floating-point operations forward, the same for dweight, the same
for dx, where span = (OH − 1)·W + OW.
"""

from typing import Any

import numpy as np
from numba import prange

from backends.numba_kernels.parallel import (
    IMAGES_PER_CHUNK,
    batch_kernel,
    chunk_count,
    chunk_kernel,
)


@chunk_kernel
def conv2d_chunk(x: Any, weight: Any, bias: Any, y: Any, first: int, last: int) -> None:
    """Convolve images `first` to `last` − 1 of `x` into `y`."""
    channels, height, width = x.shape[1:]
    out_channels, _, kh, kw = weight.shape
    oh, ow = y.shape[2:]
    span = (oh - 1) * width + ow
    plane = np.empty(oh * width, x.dtype)
    for n in range(first, last):
        image = x[n].reshape(channels, height * width)
        for o in range(out_channels):
            plane[:] = bias[o]
            for c in range(channels):
                source = image[c]
                for i in range(kh):
                    for j in range(kw):
                        tap = weight[o, c, i, j]
                        shifted = source[i * width + j :]
                        for p in range(span):
                            plane[p] += tap * shifted[p]
            for row in range(oh):
                for col in range(ow):
                    y[n, o, row, col] = plane[row * width + col]


@batch_kernel
def conv2d_batch(x: Any, weight: Any, bias: Any, y: Any) -> None:
    """Convolve all images of `x` into `y`."""
    images = x.shape[0]
    for chunk in prange(chunk_count(images)):
        first = chunk * IMAGES_PER_CHUNK
        conv2d_chunk(x, weight, bias, y, first, min(first + IMAGES_PER_CHUNK, images))


@chunk_kernel
def conv2d_backward_chunk(
    dy: Any, x: Any, weight: Any, dx: Any, dweight: Any, dbias: Any, first: int, last: int
) -> None:
    """Set `dweight` and `dbias` to the gradients from images `first` to `last` − 1.

    Writes these images' part of `dx`, (N, C, H, W) of the padded images, unless it holds no images.
    """
    channels, height, width = x.shape[1:]
    out_channels, _, kh, kw = weight.shape
    oh, ow = dy.shape[2:]
    span = (oh - 1) * width + ow
    need_dx = dx.shape[0] > 0
    dweight[:] = 0
    dbias[:] = 0
    plane = np.zeros(oh * width, x.dtype)
    for n in range(first, last):
        image = x[n].reshape(channels, height * width)
        if need_dx:
            dx[n] = 0
        for o in range(out_channels):
            total = plane.dtype.type(0)
            for row in range(oh):
                for col in range(ow):
                    gradient = dy[n, o, row, col]
                    plane[row * width + col] = gradient
                    total += gradient
            dbias[o] += total
            for c in range(channels):
                source = image[c]
                for i in range(kh):
                    for j in range(kw):
                        shifted = source[i * width + j :]
                        total = plane.dtype.type(0)
                        for p in range(span):
                            total += plane[p] * shifted[p]
                        dweight[o, c, i, j] += total
            if need_dx:
                dimage = dx[n].reshape(channels, height * width)
                for c in range(channels):
                    target = dimage[c]
                    for i in range(kh):
                        for j in range(kw):
                            tap = weight[o, c, i, j]
                            shifted = target[i * width + j :]
                            for p in range(span):
                                shifted[p] += tap * plane[p]


@batch_kernel
def conv2d_backward_batch(dy: Any, x: Any, weight: Any, dx: Any, dweight: Any, dbias: Any) -> None:
    """Set `dweight`, `dbias` and, unless it holds no images, `dx` to the gradients.

    Each chunk sums into an array of its own; they are added in the order of the chunks.
    """
    images = x.shape[0]
    chunks = chunk_count(images)
    dweights = np.empty((chunks, *weight.shape), weight.dtype)
    dbiases = np.empty((chunks, dbias.shape[0]), dbias.dtype)
    for chunk in prange(chunks):
        first = chunk * IMAGES_PER_CHUNK
        last = min(first + IMAGES_PER_CHUNK, images)
        conv2d_backward_chunk(dy, x, weight, dx, dweights[chunk], dbiases[chunk], first, last)
    dweight[:] = 0
    dbias[:] = 0
    for chunk in range(chunks):
        dweight += dweights[chunk]
        dbias += dbiases[chunk]
