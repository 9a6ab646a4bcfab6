"""Conversion of images to sparse (CSR) format.

Each image is a row: the columns of its nonzero pixels (`indices`) and their values (`data`). The
columns are divided at `edges` into groups, because each thread computes the weight gradient of some
groups for all images. `indptr` therefore has an entry per image and group:

    columns      0 ... edges[1] ... edges[2] ... pixels
    image 0      [ group 0 ][ group 1 ][ group 2 ]       indptr[0], indptr[1], indptr[2]
    image 1      [ group 0 ][ group 1 ][ group 2 ]       indptr[3], ...

Cost: each function reads every pixel once.
"""

from typing import Any

from backends.numba.kernels.compilation import entry


@entry
def count_by_column(pixels: Any, counts: Any) -> None:
    """Add to `counts` (pixels,) the number of images with a nonzero pixel in each column."""
    for image in range(pixels.shape[0]):
        for column in range(pixels.shape[1]):
            counts[column] += pixels[image, column] != 0


@entry
def write_csr(pixels: Any, edges: Any, indptr: Any, indices: Any, data: Any) -> None:
    """Write images in CSR format.

    Args:
        pixels: (N, pixels).
        edges: first column of each group, and the number of pixels, (groups + 1,).
        indptr: set to the beginning of each group of each image, (N · groups + 1,).
        indices: set to the columns of the nonzero pixels.
        data: set to the values of the nonzero pixels.
    """
    groups, at = len(edges) - 1, 0
    for image in range(pixels.shape[0]):
        for group in range(groups):
            indptr[image * groups + group] = at
            for column in range(edges[group], edges[group + 1]):
                value = pixels[image, column]
                if value != 0:
                    indices[at] = column
                    data[at] = value
                    at += 1
    indptr[-1] = at
