"""Launches the forward pass of a stage."""

from typing import Any

from backends.cupy.launch.activations import activation
from backends.cupy.launch.conv_shape import conv_shape_of
from backends.cupy.launch.convolution import conv2d
from backends.cupy.launch.launcher import Launcher
from backends.cupy.launch.linear import linear
from backends.cupy.launch.pooling import avg_pool2d, max_pool2d, pool_shape_of
from backends.cupy.plan import parameters_of
from backends.operations.common import Array
from backends.program import Stage


def forward(
    launcher: Launcher, stage: Stage, x: Any, vector: Array, y: Array, mask: Array | None
) -> None:
    """Set `y` to the output of a stage, and with max-pooling `mask` to its tie masks.

    Args:
        launcher: launches the kernels.
        stage: the stage.
        x: its input (B, …), or a `GraphBatch`, whose images it gathers.
        vector: the parameter vector.
        y: its output (B, …).
        mask: tie masks in the shape of `y`; None without max-pooling.
    """
    weight, bias = parameters_of(stage, vector)
    kind, ties = stage.activation, stage.pooling.ties if stage.pooling else "first"
    if stage.kind == "linear":
        linear(launcher, x, weight, bias, y, kind)
    elif stage.kind == "conv2d":
        shape = conv_shape_of(stage)
        conv2d(launcher, x, weight, bias, y, mask, shape, activation=kind, ties=ties)
    elif stage.kind == "max_pool2d":
        max_pool2d(launcher, x, y, mask, pool_shape_of(stage), ties)
    elif stage.kind == "avg_pool2d":
        avg_pool2d(launcher, x, y, pool_shape_of(stage))
    else:
        activation(launcher, x, y, kind)
