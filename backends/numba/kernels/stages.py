"""The stages of a program as a table of integers that compiled code reads.

The outputs of a stage are stored with the channels last. The channels of each output are padded
with zeros to whole vectors ("lanes"), so that one vector instruction computes several channels. One
image of a stage with 10 channels and 2×2 outputs:

    ┌─ out_lanes = 16 ──────┐┌───────────────────────┐
    │c0 c1 ... c9 0 0 0 0 0 0││c0 c1 ... c9 0 0 0 0 0 0│ ...          y_size = 4 · 16
    └─ output (0, 0) ────────┘└─ output (0, 1) ────────┘

A linear layer has 1×1 outputs. Sizes and offsets count the numbers of one image. In a buffer for a
tile of `capacity` images, the rows of a stage begin at offset · capacity.
"""

from typing import Any, NamedTuple

import numpy as np

from backends.numba.kernels.compilation import array_kernel
from backends.numba.kernels.views import view_2d

NONE = -1

STAGE = np.dtype(
    [
        (name, np.int64)
        for name in (
            "activation",
            "is_first",
            # Addresses of stage kernels; 0 means none. See `forward` and `backward`.
            "forward",
            "backward",
            # Input: offset in the buffer `outputs`, size, and shape.
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
            # Offsets of the parameters in the packed vector, or NONE.
            "weight",
            "bias",
            "weight_row",  # in predictions: distance of the rows of a linear layer's weight
            # Convolution of stride 1. A channel tile has `vectors` vectors of output channels.
            "kernel_size",
            "padding",
            "conv_height",
            "conv_width",
            "vectors",
            "padded_offset",  # in the buffer `padded`
            "padded_size",
            # Position in `Plan.offsets` of a list. It has, for each filter tap, the offset of the
            # input that output 0 multiplies by it.
            "tap_offsets",
            # Pooling; a `pool_size` of 0 means none.
            "pool_size",
            "pool_stride",
            "all_ties",
            "mask_offset",  # in the buffer `masks` after a convolution, else in `wide_masks`
        )
    ],
    align=True,
)


class Penalty(NamedTuple):
    """The L2 penalty of a program.

    Attributes:
        weights: begin and end of the weights of each layer in the packed vector, (layers, 2).
        l2: α of ½·α·‖W‖² / B.
    """

    weights: Any
    l2: float


class Plan(NamedTuple):
    """A program in the form that the kernels read.

    Attributes:
        stages: (stages,), of dtype `STAGE`.
        offsets: offsets of the taps of all convolutions, uint64.
        read: address of a kernel that copies the images of a tile, see `reading`; 0 if the first
            stage is linear and reads CSR rows or pixels.
        loss: address of a kernel in `losses`.
        update: address of a kernel in `updates`.
        multiply_inputs: address of the kernel in `input_layer` that multiplies the inputs of such a
            first stage by their weights; otherwise 0.
        update_inputs: address of the kernel that adds the gradient of these weights; otherwise 0.
        add_penalty: address of `penalty.add_penalty`; 0 without a penalty.
        penalty: the L2 penalty.
    """

    stages: Any
    offsets: Any
    read: int
    loss: int
    update: int
    multiply_inputs: int
    update_inputs: int
    add_penalty: int
    penalty: Any


@array_kernel
def inputs_of(stage: Any, buffer: Any, work: Any, count: int) -> Any:
    """Return the inputs (count, x_size) of a stage in a buffer with the layout of `outputs`."""
    return view_2d(buffer, stage.x_offset * work.capacity, count, stage.x_size)


@array_kernel
def outputs_of(stage: Any, buffer: Any, work: Any, count: int) -> Any:
    """Return the outputs (count, y_size) of a stage in a buffer with the layout of `outputs`."""
    return view_2d(buffer, stage.y_offset * work.capacity, count, stage.y_size)
