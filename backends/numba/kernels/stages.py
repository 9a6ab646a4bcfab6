"""The stages of a program as a table of numbers that compiled code reads.

Outputs of a stage are stored with the channels last. Channels are padded to whole vectors
("lanes"), so that one vector instruction computes neighboring channels, and rows are padded to
whole vectors. The unused lanes are always 0. One image of a stage with 10 channels and 2×2 outputs:

    ┌─ out_lanes = 16 ──────┐┌───────────────────────┐
    │c0 c1 ... c9 0 0 0 0 0 0││c0 c1 ... c9 0 0 0 0 0 0│ ...          y_size = 4 · 16
    └─ output (0, 0) ────────┘└─ output (0, 1) ────────┘

The outputs of a linear layer are one vector of lanes. All sizes and offsets are for one image; in
an array for a tile of `capacity` images, the rows of a stage begin at offset · capacity.
"""

from typing import Any, NamedTuple

import numpy as np

from backends.numba.kernels.compilation import kernel
from backends.numba.kernels.views import table

LINEAR, SPARSE_LINEAR, CONV2D, MAX_POOL2D, AVG_POOL2D, ACTIVATION = range(6)
NONE = -1

STAGE = np.dtype(
    [
        (name, np.int64)
        for name in (
            "kind",
            "activation",
            # Input: offset in the outputs of all stages, numbers, and shape.
            "x_offset",
            "x_size",
            "height",
            "width",
            "in_channels",
            "in_lanes",
            # Output, after activation and pooling.
            "y_offset",
            "y_size",
            "out_height",
            "out_width",
            "out_channels",
            "out_lanes",
            # Offsets of the parameters in the packed vector; the bias may be NONE.
            "weight",
            "bias",
            # Convolution of stride 1. A channel tile has `vectors` vectors of output channels.
            "kernel_size",
            "padding",
            "conv_height",
            "conv_width",
            "vectors",
            "padded_offset",  # of the padded input in the padded inputs of all stages
            # First entries in `Plan.offsets`: for each filter tap the offset of its input for the
            # first output, and for each output the offset of the input of its first tap.
            "tap_offsets",
            "output_offsets",
            # Pooling; a `pool_size` of 0 means none.
            "pool_size",
            "pool_stride",
            "all_ties",
            "mask_offset",  # of the tie mask in the masks of all stages
        )
    ],
    align=True,
)


class Plan(NamedTuple):
    """A program for the kernels.

    Attributes:
        stages: the table, a `STAGE` for each stage.
        offsets: offsets of all convolutions, uint64.
        classes: number of logits per image, without unused lanes.
        loss: kind of the loss, a constant of `losses`.
    """

    stages: Any
    offsets: Any
    classes: int
    loss: int


@kernel
def padded_size(stage: Any) -> Any:
    """Return the number of numbers in the padded input of a convolution."""
    height = stage.height + 2 * stage.padding
    width = stage.width + 2 * stage.padding
    return height * width * stage.in_lanes


@kernel
def rows_of(array: Any, offset: int, size: int, capacity: int, count: int) -> Any:
    """Return the rows (count, size) of a stage in an array for a tile of `capacity` images."""
    return table(array, offset * capacity, count, size)
