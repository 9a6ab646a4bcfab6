"""Named tuples of the arrays that the kernels of a whole network read and write."""

from typing import Any, NamedTuple

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.views import pointer


class Images(NamedTuple):
    """A data set, dense or in CSR format (see `csr`).

    Attributes:
        pixels: (N, pixels), uint8 or floating-point; empty for CSR.
        indptr: beginning of each group of each image, (N·groups + 1,); empty if dense.
        indices: columns of the nonzero pixels, uint16.
        data: values of the nonzero pixels, of the dtype of `pixels`.
        groups: number of column groups; 0 if dense.
        scale: factor that is applied to pixels.
        shift: number that is added to scaled pixels.
    """

    pixels: Any
    indptr: Any
    indices: Any
    data: Any
    groups: int
    scale: float
    shift: float


class Tile(NamedTuple):
    """The images that a thread takes through the network together.

    Attributes:
        rows: image numbers of all steps, in the order of their use.
        first: position in `rows` of the first image.
        images: number of images.
    """

    rows: Any
    first: int
    images: int


class Workspace(NamedTuple):
    """Buffers of all threads, arrays with a row per thread; or pointers to the rows of one thread.

    Attributes:
        capacity: maximum number of images in a tile.
        outputs: outputs of all stages, for a tile.
        gradients: gradients of `outputs`.
        padded: padded inputs of convolutions, for a tile.
        masks: tie masks of pooling after a convolution, uint8, for a tile.
        wide_masks: tie masks of other pooling, int64, for a tile.
        conv: outputs of one channel tile of one image, before pooling.
        bias: bias of a channel tile.
        filters: filters of one convolution, in the layout for the gradient of its input.
        dpadded: gradient of one padded input.
        parameters: gradient of all parameters.
        deltas: gradients of the outputs of a sparse first stage, (batch, outputs); shared by all
            threads.
    """

    capacity: int
    outputs: Any
    gradients: Any
    padded: Any
    masks: Any
    wide_masks: Any
    conv: Any
    bias: Any
    filters: Any
    dpadded: Any
    parameters: Any
    deltas: Any


@kernel
def thread_row(buffers: Any, thread: int) -> Any:
    """Return a pointer to a thread's row of an array."""
    return pointer(buffers, thread * buffers.shape[1])


@kernel
def thread_workspace(workspace: Any, thread: int) -> Any:
    """Return the workspace of one thread.

    Its buffers are pointers: if Numba passes arrays to an inlined function, it counts references to
    each of them, which takes a large part of the compile time.
    """
    return Workspace(
        workspace.capacity,
        thread_row(workspace.outputs, thread),
        thread_row(workspace.gradients, thread),
        thread_row(workspace.padded, thread),
        thread_row(workspace.masks, thread),
        thread_row(workspace.wide_masks, thread),
        thread_row(workspace.conv, thread),
        thread_row(workspace.bias, thread),
        thread_row(workspace.filters, thread),
        thread_row(workspace.dpadded, thread),
        thread_row(workspace.parameters, thread),
        workspace.deltas,
    )
