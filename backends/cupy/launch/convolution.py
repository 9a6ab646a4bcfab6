"""Launches of the convolution and of its gradients."""

import math

from backends.cupy.launch.conv_shape import (
    MAX_CHANNELS_PER_THREAD,
    PIXEL_TILE,
    ConvShape,
    channels_per_thread,
)
from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.launch.launcher import THREADS, Launcher, grid_of
from backends.cupy.launch.wgrad_update import SplitK, filter_tile_for
from backends.cupy.loader import Constant
from backends.operations.common import Array, Ties

MAX_KERNEL_SIZE = 32  # a row of a filter is kept in registers
# Filters, and taps in registers: one row of each filter of a thread. With more, float64 spills.
MAX_FILTERS_PER_THREAD = {"float32": 8, "float64": 4}
MAX_TAPS_PER_THREAD = {"float32": 24, "float64": 20}
CONV2D_THREADS = 128  # per block: small blocks keep all multiprocessors busy until the end
# A few warps on each multiprocessor of a large GPU. More threads would read pixels more often.
TARGET_THREADS = 3 << 13


def conv2d(
    launcher: Launcher,
    x: Array | GraphBatch,
    weight: Array,
    bias: Array | None,
    y: Array,
    mask: Array | None,
    shape: ConvShape,
    *,
    activation: str = "identity",
    ties: Ties = "first",
) -> None:
    """Set `y` to the activation of the convolution of `x`, and with pooling `mask` to tie masks."""
    cells = math.prod(y.shape[2:])
    max_filters = MAX_FILTERS_PER_THREAD[launcher.dtype]
    max_taps = MAX_TAPS_PER_THREAD[launcher.dtype]
    per_thread = channels_per_thread(
        shape.filters,
        maximum=min(max_filters, max_taps // shape.kernel_size),
        threads=len(x) * cells,
        target_threads=TARGET_THREADS,
    )
    constants, arguments = launcher.stage_input(x)
    constants |= {
        "KERNEL_SIZE": shape.kernel_size,
        "FILTERS_PER_THREAD": per_thread,
        "ACTIVATION": activation.upper(),
        "POOL": shape.pool,
        "PADDED": int(shape.padding > 0),
        "THREADS": CONV2D_THREADS,
    }
    grid = grid_of(len(x) * cells, per_image=cells, threads=CONV2D_THREADS)
    launcher.kernel("convolution", "conv2d", constants)(
        (*grid, shape.filters // per_thread),
        CONV2D_THREADS,
        **arguments,
        weight=weight,
        bias=bias,
        conv=shape,
        all_ties=ties == "all",
        member_stride=launcher.member_stride,
        y=y,
        mask=mask,
    )


def conv2d_backward_weight(
    launcher: Launcher, dy: Array, x: Array, partial_sums: Array, split: SplitK, shape: ConvShape
) -> None:
    """Set each row of `partial_sums` to the gradient for a part of the images.

    The rows (splits, parameters) contain the gradient of the filters, then that of the biases.
    """
    constants = _gradient_constants(shape, images=len(x))
    launcher.kernel("convolution_gradients", "conv2d_backward_weight", constants)(
        (split.units, split.splits),
        THREADS,
        dy=dy,
        x=x,
        conv=shape,
        images=len(x),
        partial_sums=partial_sums,
    )


def conv2d_backward_x(
    launcher: Launcher,
    dy: Array,
    mask: Array | None,
    weight: Array,
    x: Array,
    dx: Array,
    shape: ConvShape,
    *,
    activation: str = "identity",
) -> None:
    """Set `dx` to the gradient of `x` times the derivative of `activation`, which computed `x`."""
    constants = _gradient_constants(shape, images=len(x))
    threads = shape.input_gradient_threads
    launcher.kernel("convolution_gradients", "conv2d_backward_x", constants)(
        (
            *grid_of(len(x) * threads, per_image=threads),
            shape.channels // int(constants["CHANNELS_PER_THREAD"]),
        ),
        THREADS,
        dy=dy,
        mask=mask,
        weight=weight,
        x=x,
        conv=shape,
        batch=launcher.batch(len(x)),
        activation=activation,
        member_stride=launcher.member_stride,
        dx=dx,
    )


def _gradient_constants(shape: ConvShape, *, images: int) -> dict[str, Constant]:
    """Return the options for both kernels of convolution_gradients.cu, which is compiled once."""
    channels = channels_per_thread(
        shape.channels,
        maximum=MAX_CHANNELS_PER_THREAD,
        threads=images * shape.input_gradient_threads,
        target_threads=TARGET_THREADS,
    )
    return {
        "KERNEL_SIZE": shape.kernel_size,
        "POOL": shape.pool,
        "CHANNELS_PER_THREAD": channels,
        "PIXEL_TILE": PIXEL_TILE,
        "THREADS": THREADS,
        **filter_tile_for(shape.kernel_size).constants,
    }
