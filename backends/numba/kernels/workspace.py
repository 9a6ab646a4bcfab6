"""Named tuples with the arrays that the kernels for whole networks read and write."""

from typing import Any, NamedTuple

import numpy as np

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.views import pointer_to


class Images(NamedTuple):
    """A data set, dense or in CSR format (see `csr`).

    Attributes:
        pixels: (N, pixels), uint8 or floating-point; empty for CSR.
        indptr: position in `indices` and `data` of the first nonzero pixel of each group of each
            image, (N·groups + 1,); empty if dense.
        indices: columns of the nonzero pixels, uint16; empty if dense.
        data: values of the nonzero pixels, in the dtype of `pixels`; empty if dense.
        groups: number of column groups; 0 if dense.
        edges: first column of each group, and the number of columns, (groups + 1,).
        scale: factor by which pixels are multiplied.
        shift: number that is added to the scaled pixels.
    """

    pixels: Any
    indptr: Any
    indices: Any
    data: Any
    groups: int
    edges: Any
    scale: float
    shift: float


class Tile(NamedTuple):
    """The images that a thread processes together, stage by stage.

    Attributes:
        rows: indices in the data set of the images of all steps, in processing order.
        first: position in `rows` of the first image of the tile.
        images: number of images in the tile.
        next: position in `rows` of images to prefetch, as many as in the tile.
    """

    rows: Any
    first: int
    images: int
    next: int


class Workspace(NamedTuple):
    """Buffers of all threads, or of one thread.

    For all threads, the buffers are arrays with one row per thread. For one thread, they are
    pointers to its rows (see `thread_workspace`).

    Attributes:
        capacity: maximum number of images in a tile.
        outputs: outputs of all stages, for a tile.
        gradients: gradients of the loss with respect to `outputs`.
        padded: padded inputs of convolutions, for a tile.
        masks: tie masks of pooling after a convolution, uint8, for a tile.
        wide_masks: tie masks of max-pooling that is a stage of its own, int64, for a tile.
        no_bias: zeros, for the channel tile of a convolution without bias.
        conv: gradient of the outputs of one convolution before pooling, for one image.
        filters: filters of one convolution, in the layout that the gradient of its input needs.
        dfilters: gradient of these filters, for a tile.
        places: for each output of one convolution, two offsets, uint64 (see `conv2d_backward`).
        dpadded: gradient of the padded input of one convolution for one image.
        parameters: the thread's partial sum of the gradient of all parameters.
        deltas: gradients of the outputs of a first stage that reads CSR rows or pixels, (batch,
            deltas_row). All threads share it.
        deltas_row: length of a row of `deltas`.
        products: products of the batch and the weights that a thread updates, by thread, (threads,
            products_row). All threads share it.
        products_row: length of a row of `products`; 0 if each thread multiplies its own images by
            all weights.
        threads: number of threads.
    """

    capacity: int
    outputs: Any
    gradients: Any
    padded: Any
    masks: Any
    wide_masks: Any
    no_bias: Any
    conv: Any
    filters: Any
    dfilters: Any
    places: Any
    dpadded: Any
    parameters: Any
    deltas: Any
    deltas_row: int
    products: Any
    products_row: int
    threads: int


# The workspace of one thread in a table that compiled code reads: addresses in place of pointers.
# Numba generates much code for each argument that is an array.
ADDRESSES = np.dtype([(name, np.int64) for name in Workspace._fields])


@kernel
def thread_workspace(addresses: Any, kind: Any) -> Any:
    """Return the workspace of one thread.

    Args:
        addresses: row of a table with dtype `ADDRESSES`.
        kind: type of the numbers.
    """
    return Workspace(
        addresses.capacity,
        pointer_to(kind, addresses.outputs),
        pointer_to(kind, addresses.gradients),
        pointer_to(kind, addresses.padded),
        pointer_to(np.uint8, addresses.masks),
        pointer_to(np.int64, addresses.wide_masks),
        pointer_to(kind, addresses.no_bias),
        pointer_to(kind, addresses.conv),
        pointer_to(kind, addresses.filters),
        pointer_to(kind, addresses.dfilters),
        pointer_to(np.uint64, addresses.places),
        pointer_to(kind, addresses.dpadded),
        pointer_to(kind, addresses.parameters),
        pointer_to(kind, addresses.deltas),
        addresses.deltas_row,
        pointer_to(kind, addresses.products),
        addresses.products_row,
        addresses.threads,
    )
