"""The stages of a program as a table of numbers, which compiled code reads row by row.

All sizes are of one image. Feature maps lie with their channels last, and channels are filled up to
whole vectors ("lanes"), so that one vector instruction computes neighbouring channels; the vectors
of linear layers count as one cell. Rows are filled up to whole vectors, too. What fills up is 0
everywhere.
"""

from typing import Any, NamedTuple

import numpy as np

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.views import table

LINEAR, SPARSE_LINEAR, CONV2D, MAX_POOL2D, AVG_POOL2D, ACTIVATION = range(6)
# The activations that have a kernel; their numbers are those in this order.
ACTIVATIONS = ("identity", "relu", "sigmoid", "tanh")
IDENTITY, RELU, SIGMOID, TANH = range(4)
NONE = -1

STAGE = np.dtype(
    [
        (name, np.int64)
        for name in (
            "kind",
            "activation",
            # What goes in: where it begins in the arena, and its shape.
            "x",
            "inputs",
            "height",
            "width",
            "in_channels",
            "in_lanes",
            # What comes out, after activation and pooling.
            "y",
            "outputs",
            "out_height",
            "out_width",
            "out_channels",
            "out_lanes",
            # Parameters: where they begin in the packed vector; `bias` may be NONE.
            "weight",
            "bias",
            # Convolution: of stride 1; `vectors` make a block of output channels.
            "kernel_size",
            "padding",
            "conv_height",
            "conv_width",
            "vectors",
            "padded",  # where the input with its border begins among the saved numbers
            # Where lists begin among the offsets: for each tap of a filter, where its input for the
            # first output lies; for each output, where the input of its first tap lies.
            "tap_offsets",
            "output_offsets",
            # Pooling; 0 in `pool_size` means none.
            "pool_size",
            "pool_stride",
            "all_ties",
            "mask",  # where the tie mask begins among the masks
        )
    ],
    align=True,
)


class Plan(NamedTuple):
    """What kernels know of a program.

    Attributes:
        stages: the table, a `STAGE` for each stage.
        offsets: of all convolutions, uint64.
        classes: logits of one image, without what fills them up.
    """

    stages: Any
    offsets: Any
    classes: int


@kernel
def padded_size(stage: Any) -> Any:
    """Return how many numbers an input of a convolution takes with its border of zeros."""
    height = stage.height + 2 * stage.padding
    width = stage.width + 2 * stage.padding
    return height * width * stage.in_lanes


@kernel
def rows_of(arena: Any, at: int, capacity: int, count: int, width: int) -> Any:
    """Return the part of an arena that holds so many rows for a block of images.

    Args:
        arena: one-dimensional.
        at: numbers of one image that lie before.
        capacity: images that the arena has room for.
        count: images that are there.
        width: numbers of one image.
    """
    return table(arena, at * capacity, count, width)
