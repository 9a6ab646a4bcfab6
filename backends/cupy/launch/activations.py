"""Launches of activations that are not fused into another kernel."""

import math

from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.launch.launcher import THREADS, Launcher, grid_of
from backends.cupy.loader import source
from backends.cupy.signature import enumerators
from backends.operations.common import Array

ACTIVATIONS = enumerators(source("activations"), "Activation")  # kinds that kernels compute


def activation(launcher: Launcher, x: Array | GraphBatch, y: Array, kind: str) -> None:
    """Set `y` to an activation of `x`."""
    constants, arguments = launcher.stage_input(x)
    kernel = launcher.kernel("activations", "activation", {"ACTIVATION": kind.upper(), **constants})
    units = math.prod(y.shape[1:])
    kernel(
        grid_of(y.size, per_image=units),
        THREADS,
        **arguments,
        units=units,
        member_stride=launcher.member_stride,
        y=y,
    )


def activation_backward(launcher: Launcher, dy: Array, y: Array, dx: Array, kind: str) -> None:
    """Set `dx` to `dy` times the derivative of the activation that computed `y`.

    `dx` and `dy` may be the same array.
    """
    constants = {"ACTIVATION": kind.upper(), **launcher.dense_input}
    kernel = launcher.kernel("activations", "activation_backward", constants)
    kernel(
        grid_of(y.size),
        THREADS,
        dy=dy,
        y=y,
        size=int(y.size),
        member_stride=launcher.member_stride,
        dx=dx,
    )
