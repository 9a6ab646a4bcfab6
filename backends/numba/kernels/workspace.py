"""Named tuples with the arrays that the kernels for whole networks read and write."""

from typing import Any, NamedTuple

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.views import pointer


class Images(NamedTuple):
    """A data set, dense or in CSR format (see `csr`).

    Attributes:
        pixels: (N, pixels), uint8 or floating-point; empty for CSR.
        indptr: position in `indices` and `data` of the first nonzero pixel of each group of each
            image, (N·groups + 1,); empty if dense.
        indices: columns of the nonzero pixels, uint16; empty if dense.
        data: values of the nonzero pixels, in the dtype of `pixels`; empty if dense.
        groups: number of column groups; 0 if dense.
        scale: factor by which pixels are multiplied.
        shift: number that is added to the scaled pixels.
    """

    pixels: Any
    indptr: Any
    indices: Any
    data: Any
    groups: int
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


@kernel
def thread_row(buffers: Any, thread: int) -> Any:
    """Return a pointer to the row of a thread in `buffers`."""
    return pointer(buffers, thread * buffers.shape[1])


@kernel
def thread_workspace(workspace: Any, thread: int) -> Any:
    """Return the workspace of one thread.

    Its buffers are pointers, because Numba generates code that counts references to arrays, which
    takes a large part of the compile time.
    """
    return Workspace(
        workspace.capacity,
        thread_row(workspace.outputs, thread),
        thread_row(workspace.gradients, thread),
        thread_row(workspace.padded, thread),
        thread_row(workspace.masks, thread),
        thread_row(workspace.wide_masks, thread),
        thread_row(workspace.no_bias, thread),
        thread_row(workspace.conv, thread),
        thread_row(workspace.filters, thread),
        thread_row(workspace.dfilters, thread),
        thread_row(workspace.places, thread),
        thread_row(workspace.dpadded, thread),
        thread_row(workspace.parameters, thread),
        pointer(workspace.deltas, 0),
        workspace.deltas_row,
    )
