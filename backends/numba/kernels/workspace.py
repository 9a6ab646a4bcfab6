"""What the kernels of a whole network read and write: images, and room for what they compute."""

from typing import Any, NamedTuple

from numpy.typing import NDArray

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.views import part

Array = NDArray[Any]


class Images(NamedTuple):
    """A data set.

    A list is the pixels of an image that are not 0, in ascending order. It is cut at the same
    columns for all images, into groups; see `sparse`.

    Attributes:
        pixels: (N, pixels) uint8 or floating-point; empty where there are lists.
        starts: where each group of each image begins among `columns`, (N·groups + 1,); empty where
            there are no lists.
        columns: of all lists, uint16.
        values: likewise, in the type of `pixels`.
        groups: of a list.
        scale: what values are multiplied by.
        shift: what is added then.
    """

    pixels: Array
    starts: Array
    columns: Array
    values: Array
    groups: int
    scale: float
    shift: float


class Workspace(NamedTuple):
    """What threads write to: arrays with a row for each, or the rows of one.

    Attributes:
        capacity: images of a block.
        outputs: of all stages, for a block.
        gradients: of `outputs`.
        padded: images with their borders, for a block.
        masks: tie masks of fused pooling, uint8.
        wide_masks: tie masks of other pooling, int64.
        conv: feature maps of one block of channels of one image.
        start: biases of a block of channels.
        filters: of one convolution, laid out for the gradient of its input.
        dpadded: gradient of an image with its border.
        parameters: gradient of all parameters.
    """

    capacity: int
    outputs: Array
    gradients: Array
    padded: Array
    masks: Array
    wide_masks: Array
    conv: Array
    start: Array
    filters: Array
    dpadded: Array
    parameters: Array


@kernel
def own(rooms: Any, thread: int) -> Any:
    """Return a thread's row of an array."""
    room = rooms.shape[1]
    return part(rooms, thread * room, room)


@kernel
def of_thread(workspaces: Any, thread: int) -> Any:
    """Return the workspace of one thread."""
    return Workspace(
        workspaces.capacity,
        own(workspaces.outputs, thread),
        own(workspaces.gradients, thread),
        own(workspaces.padded, thread),
        own(workspaces.masks, thread),
        own(workspaces.wide_masks, thread),
        own(workspaces.conv, thread),
        own(workspaces.start, thread),
        own(workspaces.filters, thread),
        own(workspaces.dpadded, thread),
        own(workspaces.parameters, thread),
    )
