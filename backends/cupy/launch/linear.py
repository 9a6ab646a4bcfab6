"""Launches of the linear layer and of the gradient of its input."""

from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.launch.launcher import Launcher
from backends.cupy.launch.tiles import tile_for
from backends.operations.common import Array


def linear(
    launcher: Launcher,
    x: Array | GraphBatch,
    weight: Array,
    bias: Array | None,
    y: Array,
    activation: str,
) -> None:
    """Set `y` (B, out) to activation(x W + bias)."""
    inputs, outputs = weight.shape
    constants, arguments = launcher.stage_input(x)
    tile = tile_for(launcher.dtype, len(x), outputs)
    constants |= {"ACTIVATION": activation.upper(), **tile.constants}
    launcher.kernel("linear", "linear", constants)(
        tile.grid(len(x), outputs),
        tile.threads,
        **arguments,
        weight=weight,
        bias=bias,
        inputs=inputs,
        outputs=outputs,
        member_stride=launcher.member_stride,
        y=y,
    )


def linear_backward_x(
    launcher: Launcher, dy: Array, weight: Array, x: Array, dx: Array, activation: str
) -> None:
    """Set `dx` to dy Wᵀ times the derivative of `activation`, which computed `x`."""
    inputs, outputs = weight.shape
    tile = tile_for(launcher.dtype, len(x), inputs)
    constants = {"ACTIVATION": activation.upper(), **launcher.dense_input, **tile.constants}
    launcher.kernel("linear", "linear_backward_x", constants)(
        tile.grid(len(x), inputs),
        tile.threads,
        dy=dy,
        weight=weight,
        x=x,
        inputs=inputs,
        outputs=outputs,
        batch=launcher.batch(len(x)),
        member_stride=launcher.member_stride,
        dx=dx,
    )
